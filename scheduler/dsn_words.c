/*
 * dsn_words: see dsn_words.h. The reader is somebody who sent a mail, not an operator. So: plain sentences, no terms of
 * the trade, and advice that fits. Whoever changes a sentence changes it in all languages.
 */
#include "scheduler/dsn_words.h"

static const struct dsn_words english = {
    .tag = "en",
    .text = "[failure]\n"
            "Subject: Your message could not be delivered\n"
            "\n"
            "This is the mail system at {{hostname}}.\n"
            "\n"
            "Your message, which we received on\n"
            "{{time}},\n"
            "could not be delivered as told below. We will not try again.\n"
            "{{each}}\n"
            "\n"
            "<{{recipient}}>\n"
            "    (where your mail to <{{original}}> goes)\n"
            "    {{advice}}\n"
            "    {{host}} said: {{reason}}\n"
            "{{end}}\n"
            "\n"
            "and {{more}} more: the attached report lists them all.\n"
            "\n"
            "{{attached}}\n"
            "If you need help, write to {{postmaster}}\n"
            "and send this notice along.\n"
            "\n"
            "[delay]\n"
            "Subject: Your message is delayed\n"
            "\n"
            "This is the mail system at {{hostname}}.\n"
            "\n"
            "Your message, which we received on\n"
            "{{time}},\n"
            "has not been delivered yet, after {{waited}}.\n"
            "\n"
            "You need do nothing: we keep trying until\n"
            "{{expires}}.\n"
            "Should it not be delivered by then, we will tell you.\n"
            "{{each}}\n"
            "\n"
            "<{{recipient}}>\n"
            "    (where your mail to <{{original}}> goes)\n"
            "    {{advice}}\n"
            "    {{host}} said: {{reason}}\n"
            "{{end}}\n"
            "\n"
            "and {{more}} more: the attached report lists them all.\n"
            "\n"
            "{{attached}}\n"
            "If you need help, write to {{postmaster}}\n"
            "and send this notice along.\n"
            "\n"
            "[success]\n"
            "Subject: Your message was delivered\n"
            "\n"
            "This is the mail system at {{hostname}}.\n"
            "\n"
            "You asked to be told of the delivery of your message, which we\n"
            "received on {{time}}.\n"
            "{{each}}\n"
            "\n"
            "<{{recipient}}>\n"
            "    (where your mail to <{{original}}> goes)\n"
            "    {{advice}}\n"
            "{{end}}\n"
            "\n"
            "and {{more}} more: the attached report lists them all.\n"
            "\n"
            "{{attached}}\n"
            "If you need help, write to {{postmaster}}\n"
            "and send this notice along.\n",
    .what = {[BOUNCE_OTHER] = "The receiving mail system did not accept the message.",
             [BOUNCE_UNKNOWN_RECIPIENT] = "There is no such mailbox there.",
             [BOUNCE_MAILBOX_FULL] = "The mailbox is full.",
             [BOUNCE_INACTIVE] = "The mailbox is closed or has moved.",
             [BOUNCE_POLICY] = "The receiving mail system refuses the message by its rules.",
             [BOUNCE_SPAM] = "The receiving mail system takes the message for unwanted advertising.",
             [BOUNCE_REPUTATION] = "The receiving mail system does not trust our mail system at present.",
             [BOUNCE_AUTHENTICATION] = "The receiving mail system doubts that the message comes from its sender.",
             [BOUNCE_CONTENT] = "The receiving mail system does not accept this kind of content or address.",
             [BOUNCE_SIZE] = "The message is too large.",
             [BOUNCE_PROTOCOL] = "The mail systems did not understand each other.",
             [BOUNCE_ROUTING] = "The receiving mail system cannot be found.",
             [BOUNCE_CONNECTION] = "The receiving mail system cannot be reached.",
             [BOUNCE_TLS] = "There is no encrypted connection as required.",
             [BOUNCE_RATE] = "The receiving mail system gets more mail than it takes at present.",
             [BOUNCE_TIMEOUT] = "The receiving mail system does not answer in time.",
             [BOUNCE_LOOP] = "The message went in a circle.",
             [BOUNCE_EXPIRED] = "The message could not be handed over in all this time."},
    .then = {[DSN_THEN_CHECK] = "Please check the spelling of the address.",
             [DSN_THEN_DOMAIN] = "Please check the part after the @.",
             [DSN_THEN_ROOM] = "The recipient must make room before mail can arrive.",
             [DSN_THEN_OTHERWISE] = "Please reach the recipient by other means.",
             [DSN_THEN_SMALLER] = "Please send a smaller message, or a link.",
             [DSN_THEN_FORM] = "Please send it in another form.",
             [DSN_THEN_LATER] = "Please check the address, or try again later.",
             [DSN_THEN_WORDS] = "The words below may say why.",
             [DSN_THEN_ADMIN] = "An administrator must mend this."},
    .ourselves = "Our system",
    .delivered = "The message was delivered.",
    .relayed = "The message was handed to the next mail system, which sends no notices of delivery. If it fails there, "
               "you may still hear of it.",
    .expanded = "The message was delivered to this address and goes on to those behind it.",
    .whole = "Your message is attached.",
    .header = "The header of your message is attached.",
};

static const struct dsn_words german = {
    .tag = "de",
    .text = "[failure]\n"
            "Subject: Ihre Nachricht konnte nicht zugestellt werden\n"
            "\n"
            "Dies ist das Mailsystem von {{hostname}}.\n"
            "\n"
            "Ihre Nachricht, eingegangen am\n"
            "{{time}},\n"
            "konnte wie folgt nicht zugestellt werden. Es wird nicht weiter versucht.\n"
            "{{each}}\n"
            "\n"
            "<{{recipient}}>\n"
            "    (dorthin geht Ihre Mail an <{{original}}>)\n"
            "    {{advice}}\n"
            "    {{host}} meldet: {{reason}}\n"
            "{{end}}\n"
            "\n"
            "und {{more}} weitere: der angehängte Bericht nennt sie alle.\n"
            "\n"
            "{{attached}}\n"
            "Wenn Sie Hilfe brauchen, schreiben Sie an {{postmaster}}\n"
            "und senden Sie diese Mitteilung mit.\n"
            "\n"
            "[delay]\n"
            "Subject: Die Zustellung Ihrer Nachricht verzögert sich\n"
            "\n"
            "Dies ist das Mailsystem von {{hostname}}.\n"
            "\n"
            "Ihre Nachricht, eingegangen am\n"
            "{{time}},\n"
            "ist nach {{waited}} noch nicht zugestellt.\n"
            "\n"
            "Sie müssen nichts tun: Es wird weiter versucht bis\n"
            "{{expires}}.\n"
            "Sollte sie bis dahin nicht zugestellt sein, erfahren Sie es.\n"
            "{{each}}\n"
            "\n"
            "<{{recipient}}>\n"
            "    (dorthin geht Ihre Mail an <{{original}}>)\n"
            "    {{advice}}\n"
            "    {{host}} meldet: {{reason}}\n"
            "{{end}}\n"
            "\n"
            "und {{more}} weitere: der angehängte Bericht nennt sie alle.\n"
            "\n"
            "{{attached}}\n"
            "Wenn Sie Hilfe brauchen, schreiben Sie an {{postmaster}}\n"
            "und senden Sie diese Mitteilung mit.\n"
            "\n"
            "[success]\n"
            "Subject: Ihre Nachricht wurde zugestellt\n"
            "\n"
            "Dies ist das Mailsystem von {{hostname}}.\n"
            "\n"
            "Sie wollten von der Zustellung Ihrer Nachricht erfahren, eingegangen am\n"
            "{{time}}.\n"
            "{{each}}\n"
            "\n"
            "<{{recipient}}>\n"
            "    (dorthin geht Ihre Mail an <{{original}}>)\n"
            "    {{advice}}\n"
            "{{end}}\n"
            "\n"
            "und {{more}} weitere: der angehängte Bericht nennt sie alle.\n"
            "\n"
            "{{attached}}\n"
            "Wenn Sie Hilfe brauchen, schreiben Sie an {{postmaster}}\n"
            "und senden Sie diese Mitteilung mit.\n",
    .what = {[BOUNCE_OTHER] = "Das Mailsystem des Empfängers hat die Nachricht nicht angenommen.",
             [BOUNCE_UNKNOWN_RECIPIENT] = "Dieses Postfach gibt es dort nicht.",
             [BOUNCE_MAILBOX_FULL] = "Das Postfach ist voll.",
             [BOUNCE_INACTIVE] = "Das Postfach ist geschlossen oder umgezogen.",
             [BOUNCE_POLICY] = "Das Mailsystem des Empfängers lehnt die Nachricht nach seinen Regeln ab.",
             [BOUNCE_SPAM] = "Das Mailsystem des Empfängers hält die Nachricht für unerwünschte Werbung.",
             [BOUNCE_REPUTATION] = "Das Mailsystem des Empfängers traut unserem Mailsystem zurzeit nicht.",
             [BOUNCE_AUTHENTICATION] =
                 "Das Mailsystem des Empfängers bezweifelt, dass die Nachricht von ihrem Absender "
                 "stammt.",
             [BOUNCE_CONTENT] = "Das Mailsystem des Empfängers nimmt diese Art von Inhalt oder Adresse nicht an.",
             [BOUNCE_SIZE] = "Die Nachricht ist zu groß.",
             [BOUNCE_PROTOCOL] = "Die Mailsysteme haben einander nicht verstanden.",
             [BOUNCE_ROUTING] = "Das Mailsystem des Empfängers ist nicht zu finden.",
             [BOUNCE_CONNECTION] = "Das Mailsystem des Empfängers ist nicht zu erreichen.",
             [BOUNCE_TLS] = "Es gibt keine verschlüsselte Verbindung, wie sie verlangt ist.",
             [BOUNCE_RATE] = "Das Mailsystem des Empfängers bekommt zurzeit mehr Mail, als es annimmt.",
             [BOUNCE_TIMEOUT] = "Das Mailsystem des Empfängers antwortet nicht rechtzeitig.",
             [BOUNCE_LOOP] = "Die Nachricht lief im Kreis.",
             [BOUNCE_EXPIRED] = "Die Nachricht war in all dieser Zeit nicht zu übergeben."},
    .then = {[DSN_THEN_CHECK] = "Bitte prüfen Sie die Schreibweise der Adresse.",
             [DSN_THEN_DOMAIN] = "Bitte prüfen Sie den Teil hinter dem @.",
             [DSN_THEN_ROOM] = "Der Empfänger muss Platz schaffen, ehe Mail ankommen kann.",
             [DSN_THEN_OTHERWISE] = "Bitte erreichen Sie den Empfänger auf anderem Weg.",
             [DSN_THEN_SMALLER] = "Bitte senden Sie eine kleinere Nachricht oder einen Link.",
             [DSN_THEN_FORM] = "Bitte senden Sie sie in anderer Form.",
             [DSN_THEN_LATER] = "Bitte prüfen Sie die Adresse, oder versuchen Sie es später noch einmal.",
             [DSN_THEN_WORDS] = "Den Grund nennt vielleicht die Meldung unten.",
             [DSN_THEN_ADMIN] = "Ein Administrator muss das beheben."},
    .ourselves = "Unser System",
    .delivered = "Die Nachricht wurde zugestellt.",
    .relayed = "Die Nachricht wurde dem nächsten Mailsystem übergeben, das keine Mitteilungen über die Zustellung "
               "sendet. Wenn sie dort scheitert, können Sie noch davon erfahren.",
    .expanded = "Die Nachricht wurde dieser Adresse zugestellt und geht weiter an jene dahinter.",
    .whole = "Ihre Nachricht ist angehängt.",
    .header = "Der Kopf Ihrer Nachricht ist angehängt.",
};

static const struct dsn_words french = {
    .tag = "fr",
    .text = "[failure]\n"
            "Subject: Votre message n'a pas pu être remis\n"
            "\n"
            "Ici le système de messagerie de {{hostname}}.\n"
            "\n"
            "Votre message, reçu le\n"
            "{{time}},\n"
            "n'a pas pu être remis, comme indiqué ci-dessous. Nous n'essaierons plus.\n"
            "{{each}}\n"
            "\n"
            "<{{recipient}}>\n"
            "    (où va votre courrier pour <{{original}}>)\n"
            "    {{advice}}\n"
            "    {{host}} a répondu : {{reason}}\n"
            "{{end}}\n"
            "\n"
            "et {{more}} autres : le rapport joint les nomme tous.\n"
            "\n"
            "{{attached}}\n"
            "Si vous avez besoin d'aide, écrivez à {{postmaster}}\n"
            "et joignez cet avis.\n"
            "\n"
            "[delay]\n"
            "Subject: La remise de votre message est retardée\n"
            "\n"
            "Ici le système de messagerie de {{hostname}}.\n"
            "\n"
            "Votre message, reçu le\n"
            "{{time}},\n"
            "n'est pas encore remis après {{waited}}.\n"
            "\n"
            "Vous n'avez rien à faire : nous continuons d'essayer jusqu'au\n"
            "{{expires}}.\n"
            "S'il n'est pas remis d'ici là, nous vous le dirons.\n"
            "{{each}}\n"
            "\n"
            "<{{recipient}}>\n"
            "    (où va votre courrier pour <{{original}}>)\n"
            "    {{advice}}\n"
            "    {{host}} a répondu : {{reason}}\n"
            "{{end}}\n"
            "\n"
            "et {{more}} autres : le rapport joint les nomme tous.\n"
            "\n"
            "{{attached}}\n"
            "Si vous avez besoin d'aide, écrivez à {{postmaster}}\n"
            "et joignez cet avis.\n"
            "\n"
            "[success]\n"
            "Subject: Votre message a été remis\n"
            "\n"
            "Ici le système de messagerie de {{hostname}}.\n"
            "\n"
            "Vous avez demandé à être informé de la remise de votre message, reçu le\n"
            "{{time}}.\n"
            "{{each}}\n"
            "\n"
            "<{{recipient}}>\n"
            "    (où va votre courrier pour <{{original}}>)\n"
            "    {{advice}}\n"
            "{{end}}\n"
            "\n"
            "et {{more}} autres : le rapport joint les nomme tous.\n"
            "\n"
            "{{attached}}\n"
            "Si vous avez besoin d'aide, écrivez à {{postmaster}}\n"
            "et joignez cet avis.\n",
    .what = {[BOUNCE_OTHER] = "Le système du destinataire n'a pas accepté le message.",
             [BOUNCE_UNKNOWN_RECIPIENT] = "Cette boîte n'existe pas là-bas.",
             [BOUNCE_MAILBOX_FULL] = "La boîte est pleine.",
             [BOUNCE_INACTIVE] = "La boîte est fermée ou a changé d'adresse.",
             [BOUNCE_POLICY] = "Le système du destinataire refuse le message selon ses règles.",
             [BOUNCE_SPAM] = "Le système du destinataire prend le message pour de la publicité indésirable.",
             [BOUNCE_REPUTATION] = "Le système du destinataire ne fait pas confiance au nôtre en ce moment.",
             [BOUNCE_AUTHENTICATION] = "Le système du destinataire doute que le message vienne de son expéditeur.",
             [BOUNCE_CONTENT] = "Le système du destinataire n'accepte pas ce genre de contenu ou d'adresse.",
             [BOUNCE_SIZE] = "Le message est trop grand.",
             [BOUNCE_PROTOCOL] = "Les systèmes de messagerie ne se sont pas compris.",
             [BOUNCE_ROUTING] = "Le système du destinataire est introuvable.",
             [BOUNCE_CONNECTION] = "Le système du destinataire n'est pas joignable.",
             [BOUNCE_TLS] = "Il n'y a pas de connexion chiffrée comme exigé.",
             [BOUNCE_RATE] = "Le système du destinataire reçoit plus de courrier qu'il n'en accepte en ce moment.",
             [BOUNCE_TIMEOUT] = "Le système du destinataire ne répond pas à temps.",
             [BOUNCE_LOOP] = "Le message a tourné en rond.",
             [BOUNCE_EXPIRED] = "Le message n'a pas pu être transmis pendant tout ce temps."},
    .then = {[DSN_THEN_CHECK] = "Veuillez vérifier l'orthographe de l'adresse.",
             [DSN_THEN_DOMAIN] = "Veuillez vérifier la partie après le @.",
             [DSN_THEN_ROOM] = "Le destinataire doit faire de la place avant que du courrier puisse arriver.",
             [DSN_THEN_OTHERWISE] = "Veuillez joindre le destinataire par un autre moyen.",
             [DSN_THEN_SMALLER] = "Veuillez envoyer un message plus petit, ou un lien.",
             [DSN_THEN_FORM] = "Veuillez l'envoyer sous une autre forme.",
             [DSN_THEN_LATER] = "Veuillez vérifier l'adresse, ou réessayer plus tard.",
             [DSN_THEN_WORDS] = "La réponse ci-dessous dit peut-être pourquoi.",
             [DSN_THEN_ADMIN] = "Un administrateur doit y remédier."},
    .ourselves = "Notre système",
    .delivered = "Le message a été remis.",
    .relayed = "Le message a été transmis au système suivant, qui n'envoie pas d'avis de remise. S'il échoue là-bas, "
               "vous pourrez encore l'apprendre.",
    .expanded = "Le message a été remis à cette adresse et continue vers celles qui sont derrière elle.",
    .whole = "Votre message est joint.",
    .header = "L'en-tête de votre message est joint.",
};

static const struct dsn_words spanish = {
    .tag = "es",
    .text = "[failure]\n"
            "Subject: No se pudo entregar su mensaje\n"
            "\n"
            "Este es el sistema de correo de {{hostname}}.\n"
            "\n"
            "Su mensaje, recibido el\n"
            "{{time}},\n"
            "no se pudo entregar, como se indica abajo. No lo intentaremos más.\n"
            "{{each}}\n"
            "\n"
            "<{{recipient}}>\n"
            "    (adonde va su correo para <{{original}}>)\n"
            "    {{advice}}\n"
            "    {{host}} respondió: {{reason}}\n"
            "{{end}}\n"
            "\n"
            "y {{more}} más: el informe adjunto los nombra a todos.\n"
            "\n"
            "{{attached}}\n"
            "Si necesita ayuda, escriba a {{postmaster}}\n"
            "y adjunte este aviso.\n"
            "\n"
            "[delay]\n"
            "Subject: La entrega de su mensaje se retrasa\n"
            "\n"
            "Este es el sistema de correo de {{hostname}}.\n"
            "\n"
            "Su mensaje, recibido el\n"
            "{{time}},\n"
            "aún no se ha entregado después de {{waited}}.\n"
            "\n"
            "No tiene que hacer nada: seguimos intentándolo hasta el\n"
            "{{expires}}.\n"
            "Si para entonces no se ha entregado, se lo diremos.\n"
            "{{each}}\n"
            "\n"
            "<{{recipient}}>\n"
            "    (adonde va su correo para <{{original}}>)\n"
            "    {{advice}}\n"
            "    {{host}} respondió: {{reason}}\n"
            "{{end}}\n"
            "\n"
            "y {{more}} más: el informe adjunto los nombra a todos.\n"
            "\n"
            "{{attached}}\n"
            "Si necesita ayuda, escriba a {{postmaster}}\n"
            "y adjunte este aviso.\n"
            "\n"
            "[success]\n"
            "Subject: Su mensaje fue entregado\n"
            "\n"
            "Este es el sistema de correo de {{hostname}}.\n"
            "\n"
            "Usted pidió que se le informara de la entrega de su mensaje, recibido el\n"
            "{{time}}.\n"
            "{{each}}\n"
            "\n"
            "<{{recipient}}>\n"
            "    (adonde va su correo para <{{original}}>)\n"
            "    {{advice}}\n"
            "{{end}}\n"
            "\n"
            "y {{more}} más: el informe adjunto los nombra a todos.\n"
            "\n"
            "{{attached}}\n"
            "Si necesita ayuda, escriba a {{postmaster}}\n"
            "y adjunte este aviso.\n",
    .what = {[BOUNCE_OTHER] = "El sistema del destinatario no aceptó el mensaje.",
             [BOUNCE_UNKNOWN_RECIPIENT] = "Ese buzón no existe allí.",
             [BOUNCE_MAILBOX_FULL] = "El buzón está lleno.",
             [BOUNCE_INACTIVE] = "El buzón está cerrado o se ha mudado.",
             [BOUNCE_POLICY] = "El sistema del destinatario rechaza el mensaje según sus reglas.",
             [BOUNCE_SPAM] = "El sistema del destinatario toma el mensaje por publicidad no deseada.",
             [BOUNCE_REPUTATION] = "El sistema del destinatario no confía en el nuestro en este momento.",
             [BOUNCE_AUTHENTICATION] = "El sistema del destinatario duda de que el mensaje venga de su remitente.",
             [BOUNCE_CONTENT] = "El sistema del destinatario no acepta este tipo de contenido o de dirección.",
             [BOUNCE_SIZE] = "El mensaje es demasiado grande.",
             [BOUNCE_PROTOCOL] = "Los sistemas de correo no se entendieron.",
             [BOUNCE_ROUTING] = "No se encuentra el sistema del destinatario.",
             [BOUNCE_CONNECTION] = "No se puede alcanzar el sistema del destinatario.",
             [BOUNCE_TLS] = "No hay una conexión cifrada como se exige.",
             [BOUNCE_RATE] = "El sistema del destinatario recibe en este momento más correo del que acepta.",
             [BOUNCE_TIMEOUT] = "El sistema del destinatario no responde a tiempo.",
             [BOUNCE_LOOP] = "El mensaje dio vueltas en círculo.",
             [BOUNCE_EXPIRED] = "El mensaje no se pudo transmitir en todo este tiempo."},
    .then = {[DSN_THEN_CHECK] = "Compruebe cómo está escrita la dirección.",
             [DSN_THEN_DOMAIN] = "Compruebe la parte después de la @.",
             [DSN_THEN_ROOM] = "El destinatario debe hacer sitio antes de que pueda llegar correo.",
             [DSN_THEN_OTHERWISE] = "Contacte con el destinatario por otro medio.",
             [DSN_THEN_SMALLER] = "Envíe un mensaje más pequeño, o un enlace.",
             [DSN_THEN_FORM] = "Envíelo en otra forma.",
             [DSN_THEN_LATER] = "Compruebe la dirección, o inténtelo más tarde.",
             [DSN_THEN_WORDS] = "La respuesta de abajo quizá diga por qué.",
             [DSN_THEN_ADMIN] = "Un administrador debe arreglarlo."},
    .ourselves = "Nuestro sistema",
    .delivered = "El mensaje fue entregado.",
    .relayed = "El mensaje se pasó al sistema siguiente, que no envía avisos de entrega. Si falla allí, aún podrá "
               "enterarse.",
    .expanded = "El mensaje se entregó a esta dirección y sigue hacia las que están detrás de ella.",
    .whole = "Su mensaje va adjunto.",
    .header = "La cabecera de su mensaje va adjunta.",
};

const struct dsn_words *dsn_words(enum dsn_language language) {
    static const struct dsn_words *const all[DSN_LANGUAGES] = {&english, &german, &french, &spanish};
    return (unsigned)language < DSN_LANGUAGES ? all[language] : &english;
}

enum dsn_then dsn_then_of(enum bounce_category category) {
    switch (category) {
    case BOUNCE_UNKNOWN_RECIPIENT:
        return DSN_THEN_CHECK;
    case BOUNCE_MAILBOX_FULL:
        return DSN_THEN_ROOM;
    case BOUNCE_INACTIVE:
        return DSN_THEN_OTHERWISE;
    case BOUNCE_CONTENT:
        return DSN_THEN_FORM;
    case BOUNCE_SIZE:
        return DSN_THEN_SMALLER;
    case BOUNCE_ROUTING:
        return DSN_THEN_DOMAIN;
    case BOUNCE_CONNECTION:
    case BOUNCE_RATE:
    case BOUNCE_TIMEOUT:
    case BOUNCE_EXPIRED:
        return DSN_THEN_LATER;
    case BOUNCE_LOOP:
    case BOUNCE_TLS:
    case BOUNCE_PROTOCOL:
        return DSN_THEN_ADMIN;
    default:
        return DSN_THEN_WORDS;
    }
}

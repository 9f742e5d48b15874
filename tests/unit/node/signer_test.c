/* signer: mail of our own is signed when there is a key for it, and goes unsigned, never wrongly, when it cannot be. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "node/signer.h"

#define MESSAGE "From: <postmaster@mx.our.test>\r\nTo: <a@b.test>\r\nSubject: report\r\n\r\ntext\r\n"

static char directory[] = "/tmp/posthouse-signer-XXXXXX";
static char path[sizeof directory + 16];

static int make_key(void **state) {
    (void)state;
    if (!mkdtemp(directory))
        return 1;
    snprintf(path, sizeof path, "%s/key.pem", directory);
    pid_t pid = fork();
    if (pid == 0) {
        execlp("openssl", "openssl", "genrsa", "-traditional", "-out", path, "2048", (char *)NULL);
        _exit(127);
    }
    int status;
    return waitpid(pid, &status, 0) != pid || status != 0 || chmod(path, 0600) != 0;
}

static int remove_key(void **state) {
    (void)state;
    unlink(path);
    return rmdir(directory);
}

static struct mailauth *keys_for(const char *domain) {
    struct mailauth *m = NULL;
    struct buf problems;
    buf_init(&problems, 4096);
    const struct mailauth_key key = {domain, "s1", path};
    const struct mailauth_config c = {.authserv_id = "mx.our.test", .keys = &key, .key_count = 1};
    assert_int_equal(mailauth_new(&m, &c, &problems), ERR_OK);
    buf_deinit(&problems);
    return m;
}

/* What is put in front of the message; heap. */
static char *signature(struct signer *s, const char *from, struct span message) {
    struct buf to;
    buf_init(&to, 65536);
    assert_int_equal(signer_sign(s, from, message, &to), ERR_OK);
    char *text = strdup(buf_cstr(&to));
    buf_deinit(&to);
    return text;
}

static void expect_unsigned(struct signer *s, const char *from, struct span message) {
    char *text = signature(s, from, message);
    assert_string_equal(text, "");
    free(text);
}

static void test_signs_by_the_key_of_the_domain(void **state) {
    (void)state;
    struct signer *s = signer_new(directory);
    expect_unsigned(s, "postmaster@mx.our.test", SPAN(MESSAGE)); /* no keys at all */
    struct mailauth *ours = keys_for("our.test"), *others = keys_for("other.test");
    signer_use(s, ours);
    mailauth_unref(ours); /* the signer keeps it */
    char *text = signature(s, "postmaster@mx.our.test", SPAN(MESSAGE));
    assert_memory_equal(text, "DKIM-Signature: ", 16);
    assert_non_null(strstr(text, "d=our.test"));
    assert_string_equal(text + strlen(text) - 2, "\r\n");
    assert_null(strstr(text, "\r\n\r\n"));
    free(text);
    expect_unsigned(s, "postmaster@not-our.test", SPAN(MESSAGE));
    expect_unsigned(s, "postmaster", SPAN(MESSAGE));
    expect_unsigned(s, "", SPAN(MESSAGE));
    signer_use(s, others);
    mailauth_unref(others);
    expect_unsigned(s, "postmaster@mx.our.test", SPAN(MESSAGE));
    signer_use(s, NULL);
    expect_unsigned(s, "postmaster@other.test", SPAN(MESSAGE));
    signer_free(s);
}

/* A header over the limit cannot be signed; the message goes as it is. */
static void test_what_cannot_be_signed_goes_unsigned(void **state) {
    (void)state;
    struct signer *s = signer_new("/nonexistent");
    struct mailauth *ours = keys_for("our.test");
    signer_use(s, ours);
    mailauth_unref(ours);
    struct buf long_header, long_body;
    buf_init(&long_header, 4u << 20);
    buf_init(&long_body, 4u << 20);
    while (buf_len(&long_header) <= HELD_HEADER_MAX)
        buf_add_str(&long_header, "X-Filler: some octets\r\n");
    buf_add_str(&long_header, MESSAGE);
    buf_add_str(&long_body, MESSAGE);
    while (buf_len(&long_body) <= 2 * HELD_MEMORY) /* there is no directory for it */
        buf_add_str(&long_body, "some octets\r\n");
    expect_unsigned(s, "postmaster@our.test", buf_span(&long_header));
    expect_unsigned(s, "postmaster@our.test", buf_span(&long_body));
    buf_deinit(&long_header);
    buf_deinit(&long_body);
    signer_free(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_signs_by_the_key_of_the_domain),
        cmocka_unit_test(test_what_cannot_be_signed_goes_unsigned),
    };
    return cmocka_run_group_tests(tests, make_key, remove_key);
}

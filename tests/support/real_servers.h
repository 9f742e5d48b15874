/*
 * real_servers: slapd and PostgreSQL, run by a unit test from a temporary directory, on loopback, in the foreground.
 * They end with the test. PostgreSQL refuses to run as root, so then it runs as the user postgres.
 */
#ifndef TESTS_SUPPORT_REAL_SERVERS_H
#define TESTS_SUPPORT_REAL_SERVERS_H

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <glob.h>
#include <grp.h>
#include <limits.h>
#include <netinet/in.h>
#include <pwd.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

struct real_server {
    pid_t pid;
    unsigned port;
    char dir[100];
    char uri[300];
    char program[PATH_MAX];
};

static inline unsigned real_free_port(void) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    unsigned port = 0;
    if (fd >= 0 && bind(fd, (struct sockaddr *)&a, len) == 0 && getsockname(fd, (struct sockaddr *)&a, &len) == 0)
        port = ntohs(a.sin_port);
    close(fd);
    return port;
}

static inline bool real_listens(unsigned port) {
    struct sockaddr_in a = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    bool yes = fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof a) == 0;
    close(fd);
    return yes;
}

/* Its words go to the file "log" in dir. user NULL: as we are. */
static inline pid_t real_spawn(const char *dir, const char *user, const char *const *argv) {
    pid_t pid = fork();
    if (pid != 0)
        return pid;
    struct passwd *pw = user && geteuid() == 0 ? getpwnam(user) : NULL;
    char log[200];
    snprintf(log, sizeof log, "%s/log", dir);
    int fd = open(log, O_CREAT | O_WRONLY | O_APPEND, 0666);
    dup2(fd, 1);
    dup2(fd, 2);
    if (pw && (setgroups(0, NULL) != 0 || setgid(pw->pw_gid) != 0 || setuid(pw->pw_uid) != 0))
        _exit(126);
    prctl(PR_SET_PDEATHSIG, SIGQUIT);
    if (chdir(dir) != 0)
        _exit(126);
    execvp(argv[0], (char *const *)argv);
    _exit(127);
}

static inline bool real_run(const char *dir, const char *user, const char *const *argv) {
    int status = -1;
    pid_t pid = real_spawn(dir, user, argv);
    return pid > 0 && waitpid(pid, &status, 0) == pid && status == 0;
}

static inline bool real_write(const char *dir, const char *name, const char *text) {
    char path[200];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    bool ok = f && fputs(text, f) >= 0;
    return f && fclose(f) == 0 && ok;
}

static inline bool real_await(const struct real_server *s) {
    for (int i = 0; i < 400; i++) {
        if (real_listens(s->port))
            return true;
        usleep(50 * 1000);
    }
    return false;
}

static inline bool real_make_dir(struct real_server *s, const char *user) {
    snprintf(s->dir, sizeof s->dir, "/tmp/posthouse_server.XXXXXX");
    struct passwd *pw = user && geteuid() == 0 ? getpwnam(user) : NULL;
    s->port = real_free_port();
    return mkdtemp(s->dir) && s->port && (!pw || chown(s->dir, pw->pw_uid, pw->pw_gid) == 0);
}

/* -- slapd -- */

#define SLAPD_ADMIN "cn=admin,dc=example,dc=net"

static inline bool slapd_begin(struct real_server *s) {
    char uri[64];
    snprintf(uri, sizeof uri, "ldap://127.0.0.1:%u", s->port);
    const char *const argv[] = {"/usr/sbin/slapd", "-h", uri, "-f", "slapd.conf", "-d", "0", NULL};
    s->pid = real_spawn(s->dir, NULL, argv);
    return s->pid > 0 && real_await(s);
}

/* ldif: what it knows, below dc=example,dc=net; people of the class "person" with "mailUser" beside it. The
 * administrator's password is "secret". With a certificate in cert.pem for "localhost". */
static inline bool slapd_start(struct real_server *s, const char *ldif) {
    static const char conf[] =
        "include /etc/ldap/schema/core.schema\n"
        "include /etc/ldap/schema/cosine.schema\n"
        "attributetype ( 1.3.6.1.4.1.4203.666.9.1 NAME 'mailAlternateAddress' EQUALITY caseIgnoreIA5Match"
        " SYNTAX 1.3.6.1.4.1.1466.115.121.1.26 )\n"
        "attributetype ( 1.3.6.1.4.1.4203.666.9.2 NAME 'mailForwardingAddress' EQUALITY caseIgnoreIA5Match"
        " SYNTAX 1.3.6.1.4.1.1466.115.121.1.26 )\n"
        "attributetype ( 1.3.6.1.4.1.4203.666.9.3 NAME 'aliasTo' EQUALITY caseIgnoreIA5Match"
        " SYNTAX 1.3.6.1.4.1.1466.115.121.1.26 )\n"
        "objectclass ( 1.3.6.1.4.1.4203.666.9.4 NAME 'mailUser' SUP top AUXILIARY"
        " MAY ( mail $ mailAlternateAddress $ mailForwardingAddress $ aliasTo ) )\n"
        "TLSCertificateFile cert.pem\nTLSCertificateKeyFile key.pem\n"
        "sizelimit unlimited\n"
        "database ldif\nsuffix \"dc=example,dc=net\"\ndirectory data\n"
        "rootdn \"" SLAPD_ADMIN "\"\nrootpw secret\n"
        "access to attrs=userPassword by anonymous auth by * none\naccess to * by * read\n";
    static const char *const certify[] = {
        "openssl",  "req",   "-x509",         "-newkey", "rsa:2048",
        "-nodes",   "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
        "-days",    "2",     "-keyout",       "key.pem", "-out",
        "cert.pem", NULL};
    static const char *const add[] = {"/usr/sbin/slapadd", "-f", "slapd.conf", "-l", "data.ldif", NULL};
    char data[200];
    if (!real_make_dir(s, NULL))
        return false;
    snprintf(data, sizeof data, "%s/data", s->dir);
    snprintf(s->uri, sizeof s->uri, "ldap://127.0.0.1:%u", s->port);
    return mkdir(data, 0700) == 0 && real_write(s->dir, "slapd.conf", conf) && real_write(s->dir, "data.ldif", ldif) &&
           real_run(s->dir, NULL, certify) && real_run(s->dir, NULL, add) && slapd_begin(s);
}

/* -- PostgreSQL -- */

static inline bool postgres_begin(struct real_server *s) {
    char program[PATH_MAX + 20], port[20];
    snprintf(program, sizeof program, "%s/postgres", s->program);
    snprintf(port, sizeof port, "%u", s->port);
    const char *const argv[] = {program, "-D", "data", "-h", "127.0.0.1", "-p", port, "-k", "", "-F", NULL};
    s->pid = real_spawn(s->dir, "postgres", argv);
    return s->pid > 0 && real_await(s);
}

/* The user is postgres, the password "secret", asked for by SCRAM. */
static inline bool postgres_start(struct real_server *s) {
    glob_t found;
    char initdb[PATH_MAX + 20];
    if (glob("/usr/lib/postgresql/*/bin", 0, NULL, &found) != 0)
        return false;
    snprintf(s->program, sizeof s->program, "%s", found.gl_pathv[found.gl_pathc - 1]);
    globfree(&found);
    snprintf(initdb, sizeof initdb, "%s/initdb", s->program);
    const char *const argv[] = {initdb,        "-D", "data", "-U",         "postgres",  "-A", "scram-sha-256",
                                "--pwfile=pw", "-E", "UTF8", "--locale=C", "--no-sync", NULL};
    if (!real_make_dir(s, "postgres") || !real_write(s->dir, "pw", "secret\n"))
        return false;
    snprintf(s->uri, sizeof s->uri, "postgresql://postgres:secret@127.0.0.1:%u/postgres", s->port);
    return real_run(s->dir, "postgres", argv) && postgres_begin(s);
}

/* -- both -- */

/* To it and its children: those of PostgreSQL have sessions of their own. */
static inline void real_signal(const struct real_server *s, int signum) {
    char path[64];
    int child;
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)s->pid, (int)s->pid);
    FILE *f = fopen(path, "r");
    kill(s->pid, signum);
    while (f && fscanf(f, "%d", &child) == 1)
        kill(child, signum);
    if (f)
        fclose(f);
}

/* At once, as a machine dies. */
static inline void real_kill(struct real_server *s) {
    if (s->pid <= 0)
        return;
    real_signal(s, SIGKILL);
    waitpid(s->pid, NULL, 0);
    s->pid = 0;
}

static inline void real_end(struct real_server *s) {
    const char *const argv[] = {"rm", "-rf", s->dir, NULL};
    real_kill(s);
    if (s->dir[0])
        (void)real_run("/tmp", NULL, argv);
    s->dir[0] = 0;
}

#endif

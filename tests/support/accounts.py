"""
What tests of AUTH share: password hashes of every kind, a certificate, clients inside TLS, and the client's side of SCRAM.
"""
import base64
import ctypes
import hashlib
import hmac
import os
import smtplib
import ssl
import subprocess

CRYPT = ctypes.CDLL("libcrypt.so.1")
for function in (CRYPT.crypt_gensalt, CRYPT.crypt):
    function.restype = ctypes.c_char_p
ARGON = ctypes.CDLL("libargon2.so.1")


def crypt_hash(password, prefix, cost):
    """crypt(3): "$2b$" is bcrypt, "$y$" yescrypt."""
    noise = os.urandom(32)
    salt = CRYPT.crypt_gensalt(prefix.encode(), ctypes.c_ulong(cost), noise, len(noise))
    return CRYPT.crypt(password.encode(), salt).decode()


def argon_hash(password):
    encoded = ctypes.create_string_buffer(200)
    p, salt = password.encode(), os.urandom(16)
    status = ARGON.argon2id_hash_encoded(2, 256, 1, p, ctypes.c_size_t(len(p)), salt, ctypes.c_size_t(16), ctypes.c_size_t(32),
                                         encoded, ctypes.c_size_t(200))
    assert status == 0, status
    return encoded.value.decode()


def b64(octets):
    return base64.b64encode(octets).decode()


def scram_keys(password, salt, rounds):
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, rounds)
    return hmac.digest(salted, b"Client Key", "sha256"), hmac.digest(salted, b"Server Key", "sha256")


def scram_hash(password):
    salt = os.urandom(16)
    client, server = scram_keys(password, salt, 4096)
    return "SCRAM-SHA-256$4096:%s$%s:%s" % (b64(salt), b64(hashlib.sha256(client).digest()), b64(server))


def certificate(world):
    """Paths of the certificate and its key, made once."""
    cert, key = os.path.join(world.directory, "cert.pem"), os.path.join(world.directory, "key.pem")
    if not os.path.exists(cert):
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=mx.posthouse.test", "-days", "2",
                        "-keyout", key, "-out", cert], check=True, capture_output=True)
        os.chmod(key, 0o600)
    return cert, key


def inside_tls(port, source="127.0.0.1"):
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    s = smtplib.SMTP_SSL("127.0.0.1", port, "client.test", timeout=60, context=context, source_address=(source, 0))
    s.ehlo()
    return s


def plain(account, password):
    """The AUTH command."""
    return "AUTH PLAIN " + b64(b"\0" + account.encode() + b"\0" + password.encode())


def log_in(port, account, password, source="127.0.0.1"):
    """The reply to one try by PLAIN."""
    with inside_tls(port, source) as s:
        code, text = s.docmd(plain(account, password))
        return code, text.decode()


def scram(s, account, password):
    """The whole of SCRAM-SHA-256; the server's proof is checked too."""
    bare = "n=%s,r=%s" % (account, b64(os.urandom(15)))
    code, text = s.docmd("AUTH", "SCRAM-SHA-256 " + b64(("n,," + bare).encode()))
    if code != 334:
        return code, text.decode()
    first = base64.b64decode(text).decode()
    part = dict(p.split("=", 1) for p in first.split(","))
    assert part["r"].startswith(bare.split("r=")[1]), first
    client, server = scram_keys(password, base64.b64decode(part["s"]), int(part["i"]))
    final = "c=biws,r=" + part["r"]
    message = ",".join((bare, first, final)).encode()
    signature = hmac.digest(hashlib.sha256(client).digest(), message, "sha256")
    proof = bytes(a ^ b for a, b in zip(client, signature))
    code, text = s.docmd(b64((final + ",p=" + b64(proof)).encode()))
    if code == 334:
        assert base64.b64decode(text) == b"v=" + b64(hmac.digest(server, message, "sha256")).encode(), text
        code, text = s.docmd("")
    return code, text.decode()

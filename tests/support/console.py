"""
What tests of the HTTP face share: users with cheap hashes, questions to the JSON API as a browser or a program would ask them.
"""
import crypt
import http.client
import json
import warnings

from posthouse_test import free_port

warnings.filterwarnings("ignore", category=DeprecationWarning)
PASSWORDS = {"vera": "look only", "otto": "may change", "anna": "may all"}
ROLES = {"vera": "viewer", "otto": "operator", "anna": "admin"}


def hash_of(password, rounds=1000):
    return crypt.crypt(password, crypt.mksalt(crypt.METHOD_SHA512, rounds=rounds))


def http_settings(port, users=True, address="127.0.0.1"):
    """Lines that go on in the section `admin`."""
    text = "  http: \"%s:%d\"\n" % (address, port)
    if users:
        text += "  users:\n" + "".join("    - {name: %s, password: \"%s\", role: %s}\n" % (name, hash_of(PASSWORDS[name]), ROLES[name])
                                       for name in PASSWORDS)
    return text


class Face:
    """The HTTP face of a daemon as one client sees it, with the cookie and the token of its session."""

    def __init__(self, port):
        self.port = port
        self.cookie = self.csrf = None

    def request(self, method, path, body=None, headers=None):
        """Status, headers and the octets of the body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        all_headers = dict(headers or {})
        if self.cookie:
            all_headers.setdefault("Cookie", self.cookie)
        connection.request(method, path, body=body, headers=all_headers)
        response = connection.getresponse()
        answer = response.status, dict((k.lower(), v) for k, v in response.getheaders()), response.read()
        connection.close()
        return answer

    def get(self, path, status=200, headers=None):
        got, _, body = self.request("GET", path, headers=headers)
        if got != status:
            raise AssertionError("GET %s: %d instead of %d: %r" % (path, got, status, body[:300]))
        return json.loads(body)

    def api(self, path, status=200, headers=None):
        return self.get("/api/v1/" + path, status, headers)

    def post(self, path, fields, status=200, headers=None):
        all_headers = {"Content-Type": "application/json"}
        if self.csrf:
            all_headers["X-CSRF-Token"] = self.csrf
        all_headers.update(headers or {})
        got, answer_headers, body = self.request("POST", "/api/v1/" + path, json.dumps(fields), all_headers)
        if got != status:
            raise AssertionError("POST %s: %d instead of %d: %r" % (path, got, status, body[:300]))
        return json.loads(body), answer_headers

    def sign_in(self, name):
        answer, headers = self.post("session", {"name": name, "password": PASSWORDS[name]})
        self.cookie = headers["set-cookie"].split(";")[0]
        self.csrf = answer["csrf"]
        return answer, headers


def free_face():
    port = free_port()
    return port, Face(port)

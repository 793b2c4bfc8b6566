"""Secrets in forms of many programs, each of which was seen to be shown once."""

import pytest

from consumer.system.masking import MASK, mask_text

XML = [
    ("a.xml", '<me/><option name="password">hush</option>'),
    ("a.xml", '<me/><property name="password"><value>hush</value></property>'),
    ("a.xml", '<me/><property value="hush" name="password"/>'),
    ("a.xml", '<me/><add value="hush" key="ApiKey" />'),
    ("a.xml", "<me/>&lt;password&gt;hush&lt;/password&gt;"),
    ("a.xml", '<me/><setting name="Password" serializeAs="String"><value>hush</value></setting>'),
    ("a.xml", "<me/><field><label>password</label><value>hush</value></field>"),
    ("a.xml", "<me/><entry><value>hush</value><key>password</key></entry>"),
    ("a.plist", "<me/><key>password</key><!-- c --><string>hush</string>"),
    ("a.plist", "<me/><key>passwords</key><array><string>hush</string></array>"),
    ("a.plist", "<me/><key>token</key><integer>hush</integer>"),
]
DOCUMENTS = [
    ("a.json", '{"user":"me","k":{"type":"password","value":"hush"}}'),
    ("a.json", '{"user":"me","k":{"id":"password","value":"hush"}}'),
    ("a.json", '{"user":"me","k":{"name":"password","default":"hush"}}'),
    ("a.json", '{"user":"me","k":{"name":"password","content":"hush"}}'),
    ("a.json", '{"user":"me","k":{"field":"password","value":"hush"}}'),
    ("a.json", '{"user":"me","headers":[["Authorization","hush"]]}'),
    ("a.json", '{"user":"me","cmd":"mysql -u me -phush"}'),
    ("a.json", '{"user":"me","cmd":["--user","me:hush"]}'),
    ("a.json", '{"user":"me","cmd":["-u","me:hush"]}'),
    ("a.json", '{"user":"me","--password=hush": 2}'),
    ("a.json", '{"user":"me","webhook":"https://hooks.slack.com/services/T0/B0/hush"}'),
    (
        "a.json",
        '{"user":"me","passw":"hush","pswd":"hush","passwort":"hush","kennwort":"hush","contraseña":"hush","mot_de_passe":"hush"}',
    ),
    (
        "a.json",
        '{"user":"me","apikey":"hush","api-key":"hush","API KEY":"hush","apiKeys":["hush"],"api_keys":["hush"]}',
    ),
]
LINES = [
    ("a.ini", "me\npassword=\n hush\n"),
    ("a.conf", "me\npassword = \\\n  hush\n"),
    ("a.conf", 'me\npassword = """\nhush\n"""\n'),
    ("a.conf", "me\n# password hush\n"),
    ("a.conf", "me\nuser me password hush\n"),
    ("a.conf", "me\nuser me secret 5 hush\n"),
    ("a.conf", "me\nenable secret 5 hush\n"),
    ("a.conf", "me\nusername me password 7 hush\n"),
    ("a.conf", "me\nexport TOKEN hush\n"),
    ("a.conf", "me\nsetenv PASSWORD hush\n"),
    ("a.conf", "me\nSetEnv DB_PASSWORD hush\n"),
    ("a.conf", 'me\nproxy_set_header Authorization "Basic hush";\n'),
    ("a.conf", "me\nproxy_set_header X-Api-Key hush;\n"),
    ("a.conf", "me\nadd_header X-Auth-Token hush;\n"),
    ("a.conf", "me\nAuthorization Basic hush\n"),
    ("a.conf", "me\nHeader set Authorization hush\n"),
    ("a.conf", "me\nuser me 'password' 'hush'\n"),
    ("a.conf", "me\nmysql -u me -phush db\n"),
    ("a.conf", "me\nmysql -u me -p hush db\n"),
    ("a.conf", "me\ncurl -u me:hush http://x\n"),
    ("a.conf", "me\ncurl --user me:hush http://x\n"),
    ("a.conf", "me\nsshpass -p hush ssh x\n"),
    ("a.conf", "me\nSharedAccessSignature=hush\n"),
    ("a.conf", "me\nhttps://h/x?sig=hush&se=1\n"),
    ("a.conf", "me\nsnmpd createUser me SHA hush AES hush\n"),
    ("a.conf", 'me\ncreateUser me SHA "hush" AES\n'),
    ("a.conf", "me\ncom2sec readonly default hush\n"),
    ("a.conf", 'me\nkey "x" { algorithm hmac-sha256; secret "hush"; };\n'),
    ("a.conf", "me\nkey x { secret hush; };\n"),
    ("a.conf", 'me\n: PSK "hush"\n'),
    ("a.conf", 'me\n10.0.0.1 10.0.0.2 : PSK "hush"\n'),
    ("a.conf", "me\n<key>\nhush\n</key>\n<tls-auth>\nhush\n</tls-auth>\n<secret>\nhush\n</secret>\n"),
    ("a.conf", "me\n<tls-crypt>\nhush\n</tls-crypt>\n"),
    ("a.conf", "me\n-----BEGIN OpenVPN Static key V1-----\nhush\n-----END OpenVPN Static key V1-----\n"),
    ("a.conf", "me\n-----BEGIN PGP PRIVATE KEY BLOCK-----\nhush\n-----END PGP PRIVATE KEY BLOCK-----\n"),
    ("a.conf", "me\n---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\nhush\n---- END SSH2 ENCRYPTED PRIVATE KEY ----\n"),
    ("a.conf", "me\nPuTTY-User-Key-File-2: ssh-rsa\nPrivate-Lines: 1\nhush\n"),
    ("a.conf", "me\neyJhbGciOiJIUzI1NiJ9.eyJodXNoIjoxfQ.hushhushhushhush\n"),
    ("a.conf", "me\nghp_hushhushhushhushhushhushhushhush1234\n"),
    ("a.conf", "me\nglpat-hushhushhushhushhush\n"),
    ("a.conf", "me\nCookie: session=hush\n"),
    ("a.conf", "me\nset-cookie: a=hush\n"),
    ("a.conf", 'me\ndefault_password "hush" ;; c\n'),
    ("a.conf", "me\npassword hush // why\n"),
    ("a.conf", "me\npassword hush ; why\n"),
    ("a.conf", "me\nlogin me account x password hush\n"),
    ("a.properties", "me\ndb.password=hush\\\n hush\n"),
    ("a.conf", 'me\n"password" "hush"\n'),
    ("a.conf", "me\ndefine('DB_PASSWORD', 'hush');\n"),
    ("a.php", "me\n$password = 'hush';\n$cfg['password'] = 'hush';\n"),
    ("a.py", "me\nos.environ['PASSWORD'] = 'hush'\nPASSWORD = (\n  'hush')\n"),
    (
        "a.conf",
        "me\nlocal password = \"hush\"\nSET password TO 'hush';\n"
        "ALTER USER me PASSWORD 'hush';\nIDENTIFIED BY 'hush'\n",
    ),
    ("a.sql", "me\nCREATE USER me IDENTIFIED BY 'hush';\n"),
    ("a.sql", "me\nCREATE ROLE me WITH LOGIN PASSWORD 'hush';\n"),
    ("a.lua", "me\npassword = [[\nhush]]\n"),
    ("a.tf", "me\npassword = <<EOF\nhush\nEOF\n"),
    ("a.env", 'me\nPASSWORD="line1\nhush"\n'),
    ("a.conf", "me\nsecret {\n value = hush\n}\n"),
    ("a.conf", "me\npassword {\n hush\n}\n"),
    ("a.conf", "me\ncredentials:\n  user: me\n  word: hush\n"),
    ("a.conf", "me\npassword:\n  hush\n"),
    ("a.conf", "me\npassword: |\n  hush\n"),
    ("a.conf", "me\npasswords:\n  - hush\n"),
    ("a.conf", 'me\n{"credentials": {\n"word": "hush"}}\n'),
]


@pytest.mark.parametrize(("name", "text"), [*XML, *DOCUMENTS, *LINES])
def test_secret_is_masked_in_each_form(name: str, text: str) -> None:
    shown = mask_text(name, text)
    assert "hush" not in shown.lower()
    assert "me" in shown
    assert MASK in shown


@pytest.mark.parametrize(
    "text",
    [
        "# set the password below\nname = x\n  other = y\n",
        "shell 514/tcp # no passwords\nprice = $1$2\n",
        "PasswordAuthentication yes\nPermitEmptyPasswords no\nHostKey /etc/ssh/key\n",
        "curl -u name http://x\nmysql -P 3306 -h x\nssh -p 22 x\n",
        "<option name='mode'>fast</option>\n<name>mode</name><string>fast</string>\n",
        "A password is needed, and a token must follow.\nset-cookies = 3\n",
    ],
)
def test_other_lines_stay_as_they_are(text: str) -> None:
    assert mask_text("a.conf", text) == text


def test_lines_after_a_value_are_shown_again() -> None:
    text = (
        'password = """\nhush\n"""\nname = x\ntoken: |\n  hush\n\n  hush\n'
        "user: x\nsecret {\n a = { hush }\n}\nend = 1\n"
    )
    shown = mask_text("a.conf", text)
    assert [line for line in shown.splitlines() if MASK not in line] == ["name = x", "", "user: x", "end = 1"]
    assert "hush" not in shown

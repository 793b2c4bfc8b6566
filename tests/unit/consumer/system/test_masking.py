"""No secret is shown, whatever holds it."""

import json
from typing import Any

import pytest

from consumer.settings import Secret
from consumer.system.masking import MASK, mask_text, mask_values, parse_document


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ({"a": 1, "b": [True, None, 1.5]}, {"a": 1, "b": [True, None, 1.5]}),
        ({"api_key": "hush", "tokens": ["hush"]}, {"api_key": MASK, "tokens": MASK}),
        ({"Password": 12345, "passphrase": ""}, {"Password": MASK, "passphrase": ""}),
        ({"credentials": {"user": "me", "word": "hush"}}, {"credentials": {"user": MASK, "word": MASK}}),
        ({"a": [{"secret": "hush"}]}, {"a": [{"secret": MASK}]}),
        ({1: {(2, 3): "x"}}, {"1": {"(2, 3)": "x"}}),
        (
            ["run", "--token", "hush", "--db-password=hush", "-v"],
            ["run", "--token", MASK, f"--db-password={MASK}", "-v"],
        ),
        ("mqtt://me:hush@host:1883/x", f"mqtt://me:{MASK}@host:1883/x"),
        ("see https://host/x?token=hush", f"see https://host/x?token={MASK}"),
        ({"at": Secret("hush")}, {"at": MASK}),
        ({"at": Secret("amqp://me:hush@host")}, {"at": f"amqp://me:{MASK}@host"}),
        ({"at": Secret("amqp://me@corp:hu@sh@host")}, {"at": f"amqp://me@corp:{MASK}@host"}),
        ("from a://me:hu/sh@h/x,b://me:hush@h to me@h", f"from a://me:{MASK}@h/x,b://me:{MASK}@h to me@h"),
    ],
)
def test_secrets_are_known_by_type_by_key_and_by_shape(value: Any, shown: Any) -> None:
    assert mask_values(value) == shown


PEM = "-----BEGIN PRIVATE KEY-----\nhush\nhush\n-----END PRIVATE KEY-----\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.toml", 'user = "me"\n[db]\npassword = """\nhush\nhush"""\nurl = "pg://me:hush@host"\n'),
        ("a.yaml", "user: me\ndb:\n  password: |\n    hush\n    hush\nlist:\n  - {token: hush}\n"),
        ("a.yml", "user: me\n---\nbase: &base {secret: hush}\nother: {<<: *base}\n"),
        ("a.json", '{"user": "me", "p\\u0061ssword": "hush", "key": ' + json.dumps(PEM) + "}"),
        ("a.conf", f"user = me\nexport DB_PASSWORD='hush'\nApi-Key: hush\nurl = x://me:hush@h\n{PEM}"),
        ("a.ini", '[x]\nuser = me\n"token" : hush hush\n'),
        ("ossec.conf", "<auth>me<password>hush</password>\n<key>hush</key></auth>\n"),
        ("a.xml", "<user>me</user><db:Password\n>\nhush\nhush</db:Password ><token><![CDATA[hush<]]></token>"),
        ("a.xml", "<me/><credential key='hush'/>\n<credential key=\"hush\"><id>hush</id></credential>"),
        ("a.xml", '<me password="hush"/><me\n psk="hush"\n/><secret>hush'),
        ("a.xml", "<me/><property><name>fs.secret.key</name>\n <value>hush</value></property>"),
        ("a.plist", "<string>me</string><key>password</key>\n<string>hush</string>"),
        ("a.xml", '<me/><add key="DbPassword" value="hush"/><property name="apiKey" value="hush"/>'),
        ("a.ini", "[me]\naccess_key=hush\npsk=hush\nMYSQL_PWD = hush\nSMTP_AUTH=hush\n"),
        ("a.conf", "me\npassword hush\n  requirepass hush\nmaster_auth: hush\nmasterauth=hush\nbindpw hush  # why\n"),
        ("a.conf", 'user me;\npassword "hush hush";\npsk="hush"\nset secret hush\nrootPw \'hush\'\n'),
        (
            "a.conf",
            "me\nAuthorization: Basic hush\nproxy-authorization = hush\ncurl -H 'Authorization: Bearer hush' x\n",
        ),
        ("a.conf", "rocommunity hush me\nsnmp-server community hush RO\ncommunity = hush\n"),
        (".netrc", "machine me login me password hush\n"),
        ("a.sh", "run me --password hush --token=hush\nrun --api-key 'hush hush' me\n"),
        ("a.conf", "me\ncurl -H 'X: Bearer hushhushhushhush1'\n'password' => 'hush',\npassword := hush\n"),
        (
            "a.conf",
            '{"user": "me", "env": [{"name": "DB_PASSWORD", "value": "hush"}]}\n- name: PGPASSWORD\n  value: hush\n',
        ),
        ("a.yaml", "user: me\npwd: hush\nAuthorization: Bearer hush\naccesskey: hush\nkey: hush\npsk: hush\n"),
        ("a.yaml", "user: me\nenv:\n- name: DB_PASSWORD\n  value: hush\n- {key: apiKey, value: hush}\n"),
        (
            "a.yaml",
            "user: me\nargs: [MYSQL_PWD=hush, -p, hush, '--password', hush, '-H', 'Authorization: Basic hush']\n",
        ),
        ("a.toml", 'user = "me"\nargv = ["-p", "hush"]\ncommunity = "hush"\ndbPass = "hush"\nauth = "hush"\n'),
        ("a.json", '{"user": "me", "x": {"name": "password", "value": ["hush"]}, "Password": 12, "wpa_key": "hush"}'),
    ],
)
def test_files_are_shown_without_their_secrets(name: str, text: str) -> None:
    shown = mask_text(name, text)
    assert "hush" not in shown
    assert "me" in shown
    assert MASK in shown


@pytest.mark.parametrize(
    "text",
    [
        "# tokens are explained elsewhere\ninterval = 5\n",
        "primary_key = id\nkeyboard = de\nmonkey: banana\npublic_key = RWabc\nkeys: 3\nkey_file = /etc/x.pem\n",
        "passive = yes\nbypass = 10.0.0.0/8\ncompass: north\ncommunity_edition = 1\nauthor = Jane\nauthority: x\n",
        "PasswordAuthentication yes\npassword_required = true\nauth: basic\nauth_type = ldap\n",
        "The password was changed.\nA token has expired: 5 minutes ago\nssh -p 2222 host\nBasic authentication\n",
        "<rule id='5'><name>x</name><value>1</value></rule>\n<keyboard>de</keyboard><password/>\n",
        "name: MODE\nvalue: fast\n",
    ],
)
def test_other_text_stays_as_it_is(text: str) -> None:
    assert mask_text("a.conf", text) == text


def test_other_values_stay_as_they_are() -> None:
    value = {"argv": ["ssh", "-p", "22", "-p", "8080:80/tcp"], "password_required": True, "auth": "none"}
    assert mask_values(value) == value


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.yaml", "a: &a\n  b: *a\n", "nested too deeply"),
        ("a.json", "[" * 990 + "]" * 990, "nested too deeply"),
        (
            "a.yaml",
            "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n"
            + "".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9)),
            "too many values",
        ),
        ("a.toml", "a = ", "Invalid value"),
    ],
)
def test_text_too_large_to_show_is_an_error(name: str, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        mask_text(name, text)


@pytest.mark.parametrize(
    ("name", "text", "shown"),
    [
        ("a.yaml", "password: !vault hush\ndb: !include x\n", {"password": MASK, "db": "x"}),
        ("a.yaml", "on: yes\nn: 12\nm: 0x1F\nf: .inf\nd: 2026-02-30\n", None),
        ("a.yaml", "? [hush, a]\n: tls\n? {token: hush}\n: 1\n", {"<sequence>": "tls", "<mapping>": 1}),
        ("a.json", '// why\n{"token": "hush", "a": [1, 2,],}', {"token": MASK, "a": [1, 2]}),
    ],
)
def test_what_only_its_service_understands_is_shown_without_secrets(name: str, text: str, shown: object) -> None:
    expected = shown or {"on": True, "n": 12, "m": "0x1F", "f": ".inf", "d": "2026-02-30"}
    assert json.loads(mask_text(name, text)) == expected


def test_each_value_of_json_lines_is_shown() -> None:
    assert mask_text("a.json", '{"token": "hush"}\n{"a": 1}\n').split("\n---\n") == [
        json.dumps({"token": MASK}, indent=2),
        json.dumps({"a": 1}, indent=2),
    ]


def test_shown_text_can_be_written_as_utf_8() -> None:
    assert mask_text("a.json", '{"a": "\\ud800ü"}').encode() == '{\n  "a": "?ü"\n}'.encode()


def test_only_files_with_a_known_suffix_are_parsed() -> None:
    assert parse_document("a.conf", "a = [") is None
    assert parse_document("A.JSON", "1") == [1]

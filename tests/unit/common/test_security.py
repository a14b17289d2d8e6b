"""What SECURITY.md says: no secret is shown or tracked; nothing that is read runs code or leads astray."""

from __future__ import annotations

import ast
import logging
import re
import socket
import string
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autophagy.cli import main
from autophagy.cli.console import hint
from autophagy.common.errors import UserError, without_secrets
from autophagy.config import parse
from autophagy.runs.frames import runs_frame
from autophagy.store import StageStore
from autophagy.store.manifests import MANIFEST, encode_manifest
from autophagy.store.storage import Storage
from autophagy.tracking.mlflow import MLflowTracker
from autophagy.tracking.tracker import RunInfo
from autophagy.tracking.uri import check_tracking_uri

ROOT = Path(__file__).parents[3]
URIS = [
    "s3://KEY:SECRET@bucket/loops?region=eu-west-1",
    "s3://KEY:a/SECRET+b=@bucket/loops",
    "s3://KEY:a@SECRET@bucket/loops",
    "s3://bucket/loops?access_key=KEY&secret_key=SECRET&scheme=http",
    "s3://bucket/loops?region=eu-west-1&X-Amz-Signature=SECRET",
    "https://SECRET@host:5000",
    "http://user:SECRET@host:5000/mlflow",
    "postgresql+psycopg2://user:SECRET@host/db?sslpassword=SECRET",
]
OPTIONS = [  # of URIs
    "https://account.blob.core.windows.net/container?sv=2024-11-04&sig=HIDDEN&se=2026-01-01",
    "abfs://container@account/loops?sas=HIDDEN",
    "postgresql://host/db?pwd=HIDDEN",
    "postgresql://host/db?sslmode=require&pass=HIDDEN&application_name=x",
    "http://host:5000/?auth=HIDDEN",
    "http://host:5000/?x-auth=HIDDEN",
    "http://host:5000/login#token=HIDDEN",
    "http://host:5000/login#id_token=1&access_token=HIDDEN",
]
ENCODED = [  # queries within queries
    "mssql+pyodbc:///?odbc_connect=DRIVER%3D%7BODBC+Driver%7D%3BUID%3Dsa%3BPWD%3DSECRET%3BEncrypt%3Dyes",
    "mssql+pyodbc:///?odbc_connect=PWD%3dHIDDEN",
    "https://host/?next=https%3A%2F%2Fhost%2F%3Ftoken%3DSECRET%26page%3D1",
    "https://host/?next=https%253A%252F%252Fhost%252F%253Ftoken%253DSECRET%2526page%253D1",
]
TEXTS = [  # what other libraries put into their errors
    "Authorization: Bearer HIDDEN",
    "GET /api HTTP/1.1\nauthorization: Basic HIDDEN\naccept: */*",
    "{'Authorization': 'Bearer HIDDEN', 'Accept': '*/*'}",
    "env: AWS_ACCESS_KEY_ID=HIDDEN AWS_SECRET_ACCESS_KEY=HIDDEN AWS_SESSION_TOKEN=HIDDEN AWS_REGION=us-east-1",
    "export RAY_AUTH_TOKEN='HIDDEN'",
    'MLFLOW_TRACKING_PASSWORD="HIDDEN"',
    '{"user": "u", "password": "HIDDEN", "port": 5432}',
    '{"user":"u","password":"HIDDEN"}',
    "{'key': 'AKIA', 'secret_key': 'HIDDEN', 'anon': False}",
    "{'token': b'HIDDEN'}",
    r'"{\"api_key\": \"HIDDEN\", \"name\": \"x\"}"',
    "S3FileSystem(access_key='HIDDEN', secret_key='HIDDEN', region='us-east-1')",
    "Server=tcp:host,1433;Database=db;UID=sa;PWD=HIDDEN;Encrypt=yes",
    "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=HIDDEN;EndpointSuffix=core.windows.net",
]
WITH_QUOTES = [
    "postgresql://user:it's-HIDDEN@host/db",
    "s3://KEY:a\"HIDDEN'b@bucket",
    "s3://bucket/loops?secret_key=a'HIDDEN",
]
LETTERS = st.text(string.ascii_letters + string.digits + "+/=_-.~!$*", min_size=1, max_size=60)
PLAIN = [
    "s3://bucket/loops?endpoint_override=127.0.0.1:9000&scheme=http&region=us-east-1",
    "sqlite:////home/me@work/mlflow.db",
    "http://host:5000",
    "/data/a@b/store",
    "me@host: no such folder; give s3://bucket/prefix or http://HOST:PORT",
]


@pytest.mark.parametrize("uri", URIS)
def test_secrets_are_replaced_wherever_the_uri_stands(uri):
    for text in (uri, f"store: cannot use {uri!r} (denied); give another", f"a {uri} b {uri}"):
        shown = without_secrets(text)
        assert "SECRET" not in shown
        assert "KEY" not in shown
        assert "***" in shown
    assert without_secrets(uri).split("://")[0] == uri.split("://")[0]


@pytest.mark.parametrize("text", PLAIN)
def test_what_holds_no_secret_stays_as_it_is(text):
    assert without_secrets(text) == text


@pytest.mark.parametrize("text", OPTIONS + ENCODED + TEXTS + WITH_QUOTES)
def test_secrets_are_replaced_in_whatever_form(text):
    for told in (text, f"failed: {text}", f"failed:\n  {text}\n  at line 3"):
        shown = without_secrets(told)
        assert "HIDDEN" not in shown
        assert "***" in shown
        assert without_secrets(shown) == shown


@pytest.mark.parametrize("uri", URIS + OPTIONS + ENCODED)
def test_what_stands_around_them_stays(uri):
    assert without_secrets(f"store: cannot use '{uri}' (denied); give another").endswith("' (denied); give another")


@given(form=st.sampled_from(OPTIONS + ENCODED + TEXTS), secret=LETTERS)
def test_whatever_a_secret_is(form, secret):
    assert without_secrets(form.replace("HIDDEN", secret)) == without_secrets(form)


@pytest.mark.parametrize("unit", ["://", "://a:", "?a", "a-", "%25", "/'x", '\\"', "a.b-c_d="])
def test_long_texts_take_no_longer_than_they_are(unit):
    start = time.process_time()
    without_secrets(unit * (100_000 // len(unit)))
    assert time.process_time() - start < 10  # where steps grow with the square of the length, it takes minutes


HARMLESS = [
    "stage train key 0f3a: key = 0f3a, {'key': '0f3a'}",
    "max_tokens=512 num_tokens=3 tokenizer=x {'max_tokens': 512} monkey=1 author=me design=x",
    "RAY_AUTH_MODE=token: a Ray with token authentication, its token in ~/.ray/auth_token",
    "problem token: /home/me/.ray/auth_token: others may read it; chmod 600 /home/me/.ray/auth_token",
    "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or AWS_SECRET_ACCESS_KEY, in the environment",
    "http://host:5000/?author=me&design=x&signal=3#passage",
    "{'token': None, 'password': null}",
    '{"uri":"http://host:5000","owner":"me@host"}',
]


@pytest.mark.parametrize("text", HARMLESS)
def test_words_that_only_look_alike_stay(text):
    assert without_secrets(text) == text


@pytest.mark.parametrize("uri", URIS)
def test_errors_of_users_show_none(uri):
    assert "SECRET" not in str(UserError(f"store: {uri} is of no use"))
    with pytest.raises(UserError) as caught:
        check_tracking_uri("gopher" + uri)
    assert "SECRET" not in str(caught.value)


def test_neither_do_the_store_and_its_errors():
    storage = Storage("gopher://KEY:SECRET@bucket/loops")
    assert "SECRET" not in repr(storage)
    with pytest.raises(UserError) as caught:
        storage.check()
    assert "gopher://***@bucket" in str(caught.value)
    assert "SECRET" not in str(caught.value)


def test_a_run_that_is_not_in_the_store(tmp_path):
    store = StageStore(tmp_path)
    store.storage.uri = "s3://KEY:SECRET@bucket/loops"  # as a store on S3 has it
    with pytest.raises(UserError, match=r"no loop of this name in s3://\*\*\*@bucket"):
        runs_frame(store, ["missing"])


def test_the_command_line_prints_none(capsys):
    hint("look at", "s3://KEY:SECRET@bucket/loops/runs/demo")
    with pytest.raises(SystemExit):
        main(["store", "ls", "--store", "gopher://KEY:SECRET@bucket/loops?token=SECRET"])
    captured = capsys.readouterr()
    assert "***" in captured.out
    assert "***" in captured.err
    assert "SECRET" not in captured.out + captured.err


@pytest.mark.parametrize("uri", URIS)
def test_no_experiment_holds_one_so_that_no_run_folder_or_param_does(tiny_values, uri):
    values = tiny_values | {"data": tiny_values["data"] | {"source": f"parquet:{uri}"}}
    with pytest.raises(UserError, match="AWS_SECRET_ACCESS_KEY") as caught:
        parse(values)
    assert "SECRET@" not in str(caught.value)
    assert "=SECRET" not in str(caught.value)


def test_the_log_of_a_tracker_shows_none(caplog):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        uri = f"http://user:SECRET@127.0.0.1:{taken.getsockname()[1]}"
        with caplog.at_level(logging.INFO):
            MLflowTracker(uri).start(RunInfo("loop", "0" * 32, {}, {}, {"source": "digits", "digest": "0"}))
    assert "http://***@127.0.0.1" in caplog.text
    assert "SECRET" not in caplog.text


@pytest.mark.parametrize(
    "change", [{"attempt": "../../../../outside"}, {"files": {"../../../../outside/key": {"size": 6}}}]
)
def test_a_manifest_cannot_lead_out_of_the_store(tmp_path, change):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "key").write_bytes(b"SECRET")
    store = StageStore(tmp_path / "store")
    built = store.build("train", "k1", {}, lambda attempt: attempt.write_bytes("weights", b"0"))
    manifest = dict(built.manifest) | {"files": {"key": {"size": 6}}} | change
    store.storage.put(store.storage.at("stages", "train", "k1", MANIFEST), encode_manifest(manifest))
    assert store.open("train", "k1") is None
    assert (tmp_path / "outside" / "key").read_bytes() == b"SECRET"


def test_the_repository_holds_none():
    patterns = r"AKIA[0-9A-Z]{16}|-----BEGIN [A-Z ]*PRIVATE KEY-----|gh[pousr]_[A-Za-z0-9]{36}|hf_[A-Za-z0-9]{34}"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    files = [ROOT / name for name in listed.decode().split("\0") if name]
    assert len(files) > 50
    assert not [p for p in files if p.is_file() and re.search(patterns.encode(), p.read_bytes())]


LOADERS = {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}


@pytest.mark.parametrize("path", sorted((ROOT / "platform" / "autophagy").rglob("*.py")), ids=lambda path: path.name)
def test_nothing_that_is_read_can_run_code(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = node.module if isinstance(node, ast.ImportFrom) else None
            assert not LOADERS & {name.split(".")[0] for name in (module or "", *(alias.name for alias in node.names))}
        elif isinstance(node, ast.Call):
            called, keywords = ast.unparse(node.func), {k.arg: ast.unparse(k.value) for k in node.keywords}
            assert called not in ("eval", "exec", "yaml.load", "yaml.unsafe_load", "yaml.full_load", "torch.load")
            assert called != "np.load" or keywords.get("allow_pickle") == "False"
            assert keywords.get("shell") != "True"

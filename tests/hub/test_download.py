"""Downloads from a server that breaks off, lies, changes its mind or is not there: whole files or one sentence."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import resource
import shutil
import socket
import threading

import pytest
import torch
from local_server import rows

from basicsr_plugins.core.errors import CheckpointError, DependencyError, OptionError
from basicsr_plugins.hub import cache as cache_module
from basicsr_plugins.hub import download, fetch
from basicsr_plugins.hub.cache import held_file, model_folder
from basicsr_plugins.hub.download import UnfetchableError, check_address
from basicsr_plugins.hub.drive import confirmed_address, direct_address
from basicsr_plugins.hub.load import load_published


def got(model):
    """Fetch a model, and return its bytes."""
    return fetch.fetch(model).read_bytes()


def refused(model, error=DependencyError):
    """Return the one sentence that says why a model does not come; it always says what to do by hand."""
    with pytest.raises(error) as caught:
        fetch.fetch(model)
    text = str(caught.value)
    for part in (model.address, model.file, str(model_folder(model))):
        assert part in text
    assert "\n" not in text
    assert held_file(model) is None
    return text


def parts(model):
    folder = model_folder(model) / ".incomplete"
    return sorted(path.name for path in folder.iterdir() if path.name != "lock") if folder.is_dir() else []


def test_a_file_comes_once_and_its_hash_is_kept(site, url, weights, cache):
    model = rows(url)
    assert got(model) == weights
    assert fetch.fetch(model) == cache / "models" / "tiny" / "tiny.pth"
    assert len(site.requests) == 1
    record = json.loads((cache / "models" / "tiny" / "tiny.pth.json").read_text())
    assert record["sha256"] == hashlib.sha256(weights).hexdigest()
    assert (record["size"], record["from"], record["etag"]) == (len(weights), model.address, '"one"')
    assert parts(model) == []


def test_a_connection_that_breaks_is_resumed_where_it_broke(site, url, weights):
    site.breaks = [1000, 2000, 1]
    assert got(rows(url)) == weights
    assert [wanted for _, wanted in site.requests] == [None, "bytes=1000-", "bytes=3000-", "bytes=3001-"]


def test_the_next_run_goes_on(site, url, weights):
    site.breaks, site.answers = [1000], [None, 403]
    assert "answered 403" in refused(rows(url))
    assert parts(rows(url)) == ["tiny.pth", "tiny.pth.json"]
    assert got(rows(url)) == weights
    assert site.requests[-1][1] == "bytes=1000-"
    assert parts(rows(url)) == []


def test_last_modified_proves_a_version_as_well(site, url, weights):
    site.etag, site.modified, site.breaks = "", "Wed, 21 Oct 2015 07:28:00 GMT", [1000]
    assert got(rows(url)) == weights
    assert site.requests[1][1] == "bytes=1000-"


@pytest.mark.parametrize("etag", ["", 'W/"weak"'])
def test_what_proves_no_version_begins_anew(site, url, weights, etag):
    site.etag, site.breaks = etag, [1000]
    assert got(rows(url)) == weights
    assert site.requests[1][1] is None


def test_a_server_that_knows_no_parts_begins_anew(site, url, weights):
    site.ranges, site.breaks = False, [1000, 3000]
    assert got(rows(url)) == weights


@pytest.mark.parametrize("heeds", [True, False])
@pytest.mark.parametrize("resized", [True, False])
def test_a_file_that_changes_between_two_parts(site, url, weights, heeds, resized, tmp_path):
    other = torch.load(_written(tmp_path, weights), weights_only=True)
    other["params"]["intro.bias"] += 1
    if resized:
        other["more"] = torch.zeros(1000)
    torch.save(other, tmp_path / "tiny.pth")
    changed = (tmp_path / "tiny.pth").read_bytes()
    assert (len(changed) != len(weights)) == resized
    site.breaks, site.heeds_if_range = [1000], heeds

    def change(number):
        if number == 1:
            site.body, site.etag = changed, '"two"'

    site.before = change
    assert got(rows(url)) == changed
    assert heeds or site.requests[-1][1] is None  # no part of the old one is in it


def test_another_size_under_the_same_etag(site, url, weights):
    site.breaks, site.body = [1000], weights + b"x" * 10

    def change(number):
        if number == 1:
            site.body = weights

    site.before = change
    assert got(rows(url)) == weights
    assert [wanted for _, wanted in site.requests] == [None, "bytes=1000-", None]


def test_breaks_are_endured_while_something_comes(site, url, weights):
    site.breaks = [100] * 20
    assert got(rows(url)) == weights
    assert len(site.requests) == 21


def _written(folder, content):
    (folder / "tiny.pth").write_bytes(content)
    return folder / "tiny.pth"


def test_a_file_that_shrinks_below_what_came(site, url, weights):
    model, small = rows(url), weights
    site.body, site.breaks = weights + b"x" * 5000, [len(weights) + 100]

    def change(number):
        if number == 1:
            site.body, site.heeds_if_range = small, False

    site.before = change
    assert got(model) == weights


def test_a_length_that_says_too_little(site, url):
    site.length_off = -100
    text = refused(rows(url))
    assert f"the {len(site.body) - 100} bytes that came are no checkpoint" in text
    assert parts(rows(url)) == []  # going on from there would end there again


def test_a_length_that_says_too_much(site, url, weights):
    site.length_off = 100
    assert got(rows(url)) == weights  # asked for the rest, the server says that there is none
    site.ranges = False
    shutil.rmtree(model_folder(rows(url)))
    assert f"broke off after {len(weights)} of {len(weights) + 100} bytes" in refused(rows(url))


def test_a_known_size_and_a_known_hash(site, url, weights):
    digest = hashlib.sha256(weights).hexdigest()
    assert f"offers {len(weights)} bytes, and the file has 10" in refused(rows(url, size=10))
    assert "another file came" in refused(rows(url, sha256="0" * 64))
    assert parts(rows(url)) == []
    assert got(rows(url, size=len(weights), sha256=digest)) == weights


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/octet-stream"])
def test_a_web_page_instead_of_weights(site, url, kind):
    site.body, site.kind = b"<!DOCTYPE html><title>Please\n log in</title>", kind
    assert "sent a web page ('Please log in') instead of the file" in refused(rows(url))


@pytest.mark.parametrize("body", [b'{"error": "gone"}', b"PK\x03\x04 no zip", b""])
def test_what_is_no_checkpoint(site, url, body):
    site.body = body
    text = refused(rows(url))
    assert "no checkpoint" in text or "empty file" in text
    assert parts(rows(url)) in ([], ["tiny.pth", "tiny.pth.json"])


@pytest.mark.parametrize(("status", "tries"), [(404, 1), (403, 1), (410, 1), (500, 5), (503, 5), (429, 5)])
def test_answers_that_are_no_file(site, url, status, tries):
    site.answers = [status] * 9
    assert f"the server answered {status} (" in refused(rows(url))
    assert len(site.requests) == tries


def test_a_server_that_is_busy_for_a_moment(site, url, weights):
    site.answers = [503, 429]
    assert got(rows(url)) == weights


def test_endless_breaks_give_up(site, url):
    site.breaks = [100] + [0] * 50
    assert "broke off after 100 of" in refused(rows(url))
    assert len(site.requests) == 5


def test_redirections(site, url, weights):
    site.pages["/here"] = (302, {"Location": "/there"}, "")
    site.pages["/there"] = (307, {"Location": f"{url}/tiny.pth"}, "")
    site.breaks = [None, None, 1000]
    assert got(rows(url, address=f"{url}/here")) == weights
    assert site.requests[-1] == ("/tiny.pth", "bytes=1000-")  # the part is asked for behind the redirections too
    site.pages["/round"] = (302, {"Location": "/round"}, "")
    assert "answered 302" in refused(rows(url, name="round", address=f"{url}/round"))
    site.pages["/away"] = (302, {"Location": "http://example.org/tiny.pth"}, "")
    assert "http://example.org/tiny.pth is no https address" in refused(rows(url, name="away", address=f"{url}/away"))


@pytest.mark.parametrize("address", ["http://example.org/a", "ftp://example.org/a", "file:///etc/passwd", "a.pth"])
def test_only_https(address):
    with pytest.raises(UnfetchableError, match="no https"):
        check_address(address)
    assert "no https address" in refused(rows("", address=address))
    check_address("https://example.org/a")


def test_no_network():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert "the connection failed" in refused(rows(f"http://127.0.0.1:{unused.getsockname()[1]}"))
    assert "the connection failed" in refused(rows("https://no-such-host.invalid"))


def test_a_server_that_falls_silent(site, url, monkeypatch, weights):
    monkeypatch.setattr(download, "TIMEOUT", 0.5)
    waiting = threading.Event()
    site.before = lambda number: waiting.wait(5) if number == 0 else None
    assert got(rows(url)) == weights
    waiting.set()
    assert len(site.requests) >= 2


def test_a_disk_that_is_or_gets_full(site, url, monkeypatch):
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100))
    assert "the disk has 100 left" in refused(rows(url), CheckpointError)
    monkeypatch.undo()


def test_a_write_that_fails_in_the_middle(site, url, weights):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(weights) // 2, before[1]))
    try:
        assert "cannot be written: File too large" in refused(rows(url), CheckpointError)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert got(rows(url)) == weights


def test_a_cache_that_is_no_folder(url, cache):
    cache.write_text("a file")
    with pytest.raises(CheckpointError, match="cannot be written"):
        fetch.fetch(rows(url))


def _fetch_in_a_process(address, results):
    try:
        results.put(len(fetch.fetch(rows(address)).read_bytes()))
    except Exception as error:
        results.put(str(error))


def test_processes_at_once_fetch_once(site, url, weights):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    site.before = lambda number: threading.Event().wait(0.3)
    processes = [context.Process(target=_fetch_in_a_process, args=(url, results)) for _ in range(3)]
    for process in processes:
        process.start()
    found = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert found == [len(weights)] * 3
    assert len(site.requests) == 1


def test_the_bar(site, url, monkeypatch):
    bars = []

    class Bar:
        n = 0

        def __init__(self, **given):
            self.given = given
            bars.append(self)

        def update(self, count):
            self.n += count

        def close(self):
            self.closed = True

    site.breaks = [1000]
    fetch.fetch(rows(url), Bar)
    assert [(bar.n, bar.total, bar.closed) for bar in bars] == [(len(site.body), len(site.body), True)]
    assert bars[0].given["desc"] == "tiny.pth"


FORM = """<html><head><title>Google Drive - Virus scan warning</title></head><body>
<form id="download-form" action="{url}/tiny.pth" method="get">
<input type="hidden" name="id" value="1Fr2"><input type="hidden" name="export" value="download">
<input type="hidden" name="confirm" value="t"><input type="hidden" name="uuid" value="a-b"></form></body></html>"""


def test_the_page_that_google_drive_puts_before_large_files(site, url, weights):
    site.pages["/uc"] = (200, {}, FORM.format(url=url))
    site.breaks = [None, 1000]
    assert got(rows(url, address=f"{url}/uc")) == weights
    paths = [path for path, _ in site.requests]
    assert paths[:2] == ["/uc", "/tiny.pth?id=1Fr2&export=download&confirm=t&uuid=a-b"]
    assert site.requests[-1] == (paths[1], "bytes=1000-")


def test_another_run_goes_on_behind_that_page(site, url, weights):
    site.pages["/uc"] = (200, {}, FORM.format(url=url))
    model = rows(url, address=f"{url}/uc")
    site.breaks, site.answers = [None, 1000], [None, None, 403]
    refused(model)
    assert got(model) == weights
    assert site.requests[-1][1] == "bytes=1000-"


def test_a_page_that_leads_to_itself_and_one_of_a_file_that_too_many_fetched(site, url):
    site.pages["/tiny.pth"] = (200, {}, FORM.format(url=url))
    assert "Virus scan warning" in refused(rows(url))
    assert len(site.requests) == 2
    site.pages["/tiny.pth"] = (200, {}, "<title>Google Drive - Quota exceeded</title>")
    assert "too many fetched it" in refused(rows(url))


def test_addresses_of_google_drive():
    assert direct_address("https://drive.google.com/file/d/1a-B_2/view?usp=sharing") == (
        "https://drive.usercontent.google.com/download?id=1a-B_2&export=download&confirm=t"
    )
    assert direct_address("https://example.org/a.pth") == "https://example.org/a.pth"
    old = '<a id="uc" href="/uc?export=download&amp;confirm=Xy&amp;id=1">Download anyway</a>'
    link = "https://drive.google.com/uc?export=download&confirm=Xy&id=1"
    assert confirmed_address(old, "https://drive.google.com/uc?id=1") == link
    assert confirmed_address(old, "https://example.org/uc?id=1") is None
    assert confirmed_address("<form action='/login'></form>", "https://drive.google.com/uc") is None


def test_a_file_put_there_by_hand(site, url, weights, caplog):
    model = rows(url)
    model_folder(model).mkdir(parents=True)
    path = _written(model_folder(model), weights)
    assert fetch.fetch(model) == path
    assert site.requests == []
    assert json.loads(path.with_name("tiny.pth.json").read_text())["from"] == "put here by hand"
    path.write_bytes(weights[:-1])
    with pytest.raises(CheckpointError, match=r"has changed since it came here .* delete .*tiny\.pth\.json"):
        fetch.fetch(model)
    path.with_name("tiny.pth.json").write_text("{}")
    with pytest.raises(CheckpointError, match="cannot be read"):
        fetch.fetch(model)


def test_a_cache_that_is_read_only(url, weights, monkeypatch, caplog):
    model = rows(url)
    model_folder(model).mkdir(parents=True)
    path = _written(model_folder(model), weights)

    def refuse(*_):
        raise CheckpointError("read-only")

    monkeypatch.setattr(cache_module, "write_record", refuse)
    assert fetch.fetch(model) == path
    assert "cannot be recorded, so a later change goes unseen" in caplog.text


def test_by_hand_under_another_name(url, weights):
    model = rows(url)
    model_folder(model).mkdir(parents=True)
    other = model_folder(model) / "their name (1).pth"
    other.write_bytes(weights)
    assert fetch.fetch(model) == other
    (model_folder(model) / "b.ckpt").write_bytes(weights)
    with pytest.raises(OptionError, match=r"holds b\.ckpt, their name \(1\)\.pth, and none is called tiny\.pth"):
        fetch.fetch(model)


def test_by_hand_with_a_published_hash(url, weights):
    model = rows(url, sha256="0" * 64)
    model_folder(model).mkdir(parents=True)
    _written(model_folder(model), weights)
    with pytest.raises(CheckpointError, match="is not the published tiny"):
        fetch.fetch(model)


def test_a_folder_of_google_drive_and_a_network_that_is_not_here(url):
    folder = "https://drive.google.com/drive/folders/1ZED"
    assert "cannot be fetched like a file" in refused(rows(url, address=folder))
    with pytest.raises(OptionError, match="cannot be run here: no such network"):
        fetch.fetch(rows(url, missing="no such network"))


def test_the_network_is_compared_with_the_table(site, url, weights):
    network, path = load_published(rows(url))
    assert (type(network).__name__, network.training, path.name) == ("NAFNet", False, "tiny.pth")
    with pytest.raises(CheckpointError, match=r"is not tiny: .*another variant: they look like width: 4"):
        load_published(rows(url, arguments={"width": 8}))
    with pytest.raises(CheckpointError, match=r"is not tiny: it holds a NAFNet, and that is a Restormer"):
        load_published(rows(url, network="Restormer", arguments={"LayerNorm_type": "BiasFree"}))
    with pytest.raises(CheckpointError, match=r"is not tiny: it holds a NAFNet, and that is a Restormer"):
        load_published(rows(url, network="Restormer", arguments={}))


def test_arguments_that_no_shape_shows_come_from_the_table(url):
    assert load_published(rows(url, arguments={"padding": "reflect"}))[0].padding == "reflect"

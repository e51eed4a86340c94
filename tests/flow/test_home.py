"""A home folder that other users may enter is named when a herder starts."""

from __future__ import annotations


def test_a_herder_names_a_home_that_is_open_to_others_once(make_herd):
    herd = make_herd()
    herd.folder.chmod(0o755)
    herder = herd.start_herder()
    herder.says("home_open_to_others")
    assert "mode=0755" in herder.log
    herd.folder.chmod(0o700)
    assert "home_open_to_others" not in herd.start_herder().log
    assert herder.log.count("home_open_to_others") == 1

"""README.md says what is so."""

from deploy.settings_table import README, put


def test_the_settings_table_is_that_of_the_settings_classes():
    readme = README.read_text()
    assert readme == put(readme), "run: .venv/bin/python -m deploy.settings_table --write"

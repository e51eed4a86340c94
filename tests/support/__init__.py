"""What the tests of herder and workers share."""

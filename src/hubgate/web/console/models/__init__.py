"""The console's models: the list, the form, the Hub picker, tests."""

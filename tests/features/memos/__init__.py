"""A feature as a newcomer would write one: memos, with a table, routes, a page, a metric and a command."""

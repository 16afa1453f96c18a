"""The console: pages under `/ui`, rendered on the server, with htmx replacing parts of them.

How to add a page:

1. **A handler** is an async method `(visit: Visit) -> Response` of a class that is given the services it needs
   (`models/page.py`, `keys.py`). It calls the services' verbs, and ends in `visit.page("name.html", **values)` or in
   `visit.go(path)`. `await visit.form()` reads a sent form; `visit.is_part` says whether htmx asks for a part.
   It raises `HubgateError` as every face does: `auth.py` renders it as a page, or as a notice for htmx.
2. **A route** in `routes.py`: `inside(method, path, handler)` for who is signed in, which checks the form token of
   whatever is not a GET (the hidden field `csrf`, or the header that htmx sends by `hx-headers` on the body).
3. **A template** extends `base.html` and fills its blocks: `title`, `content`, and if need be `scripts` (a further
   `<script src="{{ static_url('x.js') }}" defer>`) and `notice` (above the content). Templates know `visit`, `t` (words
   by key, with named values), `number`, `percent`, `date`, `moment`, `ago` (of seconds since the epoch), `language`,
   `static_url`, `quote` (of a part of a path), `icon`. Macros: `_icons.html` (icon), `_form.html` (text, whole, choice,
   cards), `_error.html` (told), `_model.html` (state, used). A missing value is an error (StrictUndefined).
4. **Words**: each key in all four languages of `locales/`; a larger page has files of its own (`play.en.json`).
   `test_locales.py` fails on a key that is missing, unused, or takes other values than in English. Names in Latin
   letters are put in `<bdi>` (class `name` for monospace).
5. **In the bar**: a pair in `page_context.NAVIGATION`, whose words are `nav.<name>`. Pages of one
   endpoint are linked from its own page (`overview.html`) and from the menu of its row (`models_list.html`).

No script and no style stands in a page (the content security policy refuses both), and nothing is asked of another
address than the gate's. What must be drawn is SVG in the page, coloured by classes.
"""

"""The console: pages under `/ui`, rendered on the server; htmx replaces parts of them.

How to add a page:

1. **Handler**: an async method `(context: PageContext) -> Response` of a class that receives the services it needs, such
   as `KeysPage`. It ends with `context.render("name.html", **values)` or `context.redirect(path)`. `context.form()` reads
   a form, `context.is_htmx` is true if htmx requests a part of the page. Raise `HubgateError`: `auth.py` renders it.
2. **Route** in `routes.py`: `auth.private(method, path, handler)`. It requires a session, and a CSRF token for all
   methods but GET: the hidden field `csrf`, or the header that htmx adds.
3. **Template** in `templates/`: extends `base.html` with the blocks `title` and `content`, and if needed `scripts` and
   `notice`. `PageContext.render` lists the variables; macros are in the files that start with an underscore.
4. **Messages** in all languages of `locales/`; `tests/web/console/test_locales.py` finds missing and unused keys. Put
   names in Latin letters into `<bdi>`.
5. **Navigation**: an entry in `page_context.NAVIGATION`, with the title `nav.<name>`.

The content security policy allows no inline script or style, and no requests to other hosts.
"""

"""A server for many classifiers on one base, over HTTP.

`app` has the routes, `batching` the thread that computes, `guard` what is refused before a route sees it, `collection` the
classifiers and the folder they may come from, `running` the process; `page.html` is what a browser sees.
"""

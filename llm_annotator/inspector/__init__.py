"""Pages for people: what was annotated, how it was answered, where it occurred, what it earned.

Rendered on the server, work without script and without a network. `build_inspector` makes the app that `oni serve` and
`oni inspect RUN` mount; `export_page` writes one page that holds everything.
"""

"""`/retrieve` over HTTP: Search-R1's protocol, for any engine of this process.

`protocol` reads requests and writes answers, `searcher` gathers the requests that wait into batches, `reading` opens
documents and finds words in them, `metrics` counts, `app` has the routes; `server` runs an aiohttp application, also
that of `view`; `connection_limit` refuses connections for which no file can be opened.
"""

"""The page of `lisrd serve`: two photographs in a browser, and why they match.

    browser -> guard -> gradio's page -> request -> worker processes -> answer -> the viewer in the browser

Strangers use it, so each part distrusts the one before it: `guard` lets through the few routes that the page needs,
`request` takes only names that were offered and files that were uploaded, and a worker process that takes too long or
too much memory is ended. No answer is kept: the browser holds it, downloads included.
"""

"""One module a step, in the data's order: request, submit, receive, watch, collect, browse."""

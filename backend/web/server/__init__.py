"""The server around the routes: the protocol, the middleware, the pages of whoever runs it."""

"""A public address for a service on this machine, by ngrok (the extra `reelhook[ngrok]`)."""

from __future__ import annotations

from backend.core.errors import SettingsError


def open_ngrok(port: int) -> str:
    """Open a tunnel to the port for as long as this process lives; its https address.

    The token is ngrok's own variable, NGROK_AUTHTOKEN. Raises SettingsError with what to do.
    """
    if not port:
        raise SettingsError("--tunnel needs a fixed port: add --port 8000")
    try:
        import ngrok
    except ImportError:
        raise SettingsError("--tunnel ngrok needs an extra: pip install 'reelhook[ngrok]'") from None
    try:
        return str(ngrok.forward(port, authtoken_from_env=True).url())
    except (ValueError, RuntimeError, OSError) as error:
        raise SettingsError(f"ngrok opened no tunnel (is NGROK_AUTHTOKEN set?): {error}") from error

"""Where a server of vLLM answers, as its clients write it."""


def client_address(host: str, port: int, *, uds: str | None, has_tls: bool) -> str:
    """Return the base address of the OpenAI-compatible API.

    Args:
        host: Name or address that the server listens on; empty for all of the machine's.
        port: The TCP port.
        uds: The Unix domain socket that it listens on instead; None if it does not.
        has_tls: Whether it was given a certificate.
    """
    if uds:
        return f"unix:{uds}"
    return f"{'https' if has_tls else 'http'}://{f'[{host}]' if ':' in host else host or '0.0.0.0'}:{port}/v1"

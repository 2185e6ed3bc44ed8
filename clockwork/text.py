"""Text from bytes that people and their editors wrote."""

BYTE_ORDER_MARK = "\ufeff"


def decode_text(content: bytes) -> str:
    """UTF-8 without the byte order mark that some editors put at the beginning.

    Raises: ValueError, naming the first byte that is not UTF-8.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"is not UTF-8 at byte {error.start}") from error

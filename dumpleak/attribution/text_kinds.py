"""What a text is: a path, a URL, a piece of XML. Told by how it begins, or by all of it."""

from __future__ import annotations

import re

# In this order: a text is of the first kind that it looks like. `fullmatch` has to hold where the pattern
# ends with `\Z`. Rather none than a wrong one: what could as well be a name or a sentence is of no kind.
_KINDS: tuple[tuple[str, str], ...] = (
    ("GUIDs", r"\{?[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}\}?\Z"),
    (
        "HTTP",
        r"(?:GET|HEAD|POST|PUT|DELETE|OPTIONS|PATCH|CONNECT|TRACE) \S+ HTTP/\d"
        r"|HTTP/\d(?:\.\d)? \d{3}\b"
        r"|(?i:accept(?:-[a-z]+)?|authorization|cache-control|connection|content-[a-z]+|cookie|date|etag"
        r"|expires|host|if-[a-z-]+|last-modified|location|origin|referer|server|set-cookie"
        r"|transfer-encoding|user-agent|vary|x-[a-z-]+): \S",
    ),
    ("URLs", r"[A-Za-z][A-Za-z0-9+.-]{1,20}://\S"),
    (
        "registry keys",
        r"(?:HKEY_[A-Z_]+|HK(?:LM|CU|CR|U|CC))\\|(?i:\\REGISTRY\\(?:MACHINE|USER)\b)",
    ),
    (
        "paths",
        r"[A-Za-z]:[\\/](?![\\/])"
        r"|\\\\[\w.$?-]+\\[\w.$-]"
        r"|\\(?:Device|SystemRoot|\?\?|DosDevices)\\"
        r"|%\w+%\\"
        r"|\.{1,2}[\\/]\w"
        r"|/[\w.@-]+(?:/[\w.@ -]+)+/?\Z",
    ),
    (
        "log lines",
        r"[\[(]?\d{4}[-/.]\d\d[-/.]\d\d[T ,]+\d\d:\d\d.*[^\d:.,ZT+\s\])-]"
        r"|[\[(]?\d\d:\d\d:\d\d\b.*[^\d:.,\s\])-]"
        r"|\[?(?:TRACE|DEBUG|INFO|WARN|WARNING|ERROR|FATAL)(?:\]|:| {2,}|\t| [\[(])",
    ),
    (
        "HTML",
        r"\s*<(?i:!doctype html|html|head|body|div|span|p|table|ul|li|script|style"
        r"|a\s+href=[^<>]*)(?=[\s/>])[^<]*>",
    ),
    ("XML", r"\s*<(?:\?xml\b|!\[CDATA\[|!--|/?[A-Za-z_][\w.-]*(?::[\w.-]+)?(?:\s[^<>]*)?/?>)"),
    (
        "JSON",
        r'\s*\{\s*(?:"(?:[^"\\]|\\.)*"\s*:|\}\s*\Z)'
        r'|\s*\[\s*(?:\{\s*["}]|"(?:[^"\\]|\\.)*"\s*[,\]]|-?\d+(?:\.\d+)?\s*,|\[|\]\s*\Z)',
    ),
    # Sentences begin with such words, too, but not in capitals, and not with its signs.
    (
        "SQL",
        r"\s*(?:SELECT\s.*\sFROM\s|INSERT\s+(?:OR\s+[A-Z]+\s+)?INTO\s|UPDATE\s+\S+\s+SET\s|DELETE\s+FROM\s"
        r"|CREATE\s+(?:[A-Z]+\s+)?(?:TABLE|INDEX|VIEW|TRIGGER)\s|ALTER\s+TABLE\s"
        r"|DROP\s+(?:TABLE|INDEX|VIEW)\s|MERGE\s+INTO\s|PRAGMA\s+\w+|BEGIN\s+TRANSACTION\b)"
        r"|\s*(?i:select\s+(?:\*|[\w.\[\]\"]+\s*,).*\sfrom\s|select\s.*\sfrom\s.*\swhere\s"
        r"|insert\s+into\s+\S+\s*(?:\(|values|select\s)|update\s+\S+\s+set\s+\S+\s*="
        r"|delete\s+from\s+\S+\s+where\s|create\s+table\s+\S+\s*\()",
    ),
    ("hex digits", r"(?=\D*\d)(?=[^A-Fa-f]*[A-Fa-f])(?:[0-9a-f]{16,}|[0-9A-F]{16,})\Z"),
    # Without its own signs it may be a long name.
    (
        "base64",
        r"(?=[^+=]*[+=])(?=\D*\d)(?=[^A-Z]*[A-Z])(?=[^a-z]*[a-z])[A-Za-z0-9+/]{22,}={0,2}\Z",
    ),
    ("name=value", r"[A-Za-z_][\w.()-]*=[^=\s]"),
)
_KIND = re.compile(
    "|".join(f"(?P<k{number}>{pattern})" for number, (_, pattern) in enumerate(_KINDS)),
    re.DOTALL,
)


def kind_of(text: str) -> str:
    """What a text is, in the plural, "URLs"; "" for any other."""
    found = _KIND.match(text)
    return _KINDS[int((found.lastgroup or "k")[1:])][0] if found else ""

"""Pool tags of kernel objects: the object manager takes them from the first letters of a type's name."""

from __future__ import annotations

# Documented in pooltag.txt as "… objects".
OBJECT_TAGS = frozenset(
    (
        *("Proc", "Thre", "Toke", "File", "Even", "Muta", "Sema", "Time", "Sect", "Key "),
        *("Job ", "Dire", "Symb", "Port", "ALPC", "Devi", "Driv", "IoCo", "TpWo", "Desk"),
        *("Wind", "EtwR", "Prof", "Call", "Sess", "Part", "TmTx", "TmRm", "TmEn", "TmTm"),
        *("Wait", "DbgO", "Icp "),
    )
)

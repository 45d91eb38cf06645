"""The table of faults names tests that exist, a row for each fault."""

import re
from pathlib import Path

TESTS = Path(__file__).parent
ROWS = [[cell.strip() for cell in line.strip("|").split("|")] for line in (TESTS / "FAULTS.md").read_text().splitlines() if "| F" in line]


def test_each_fault_has_a_row_and_each_row_a_test_or_a_reason():
    assert [row[0] for row in ROWS] == [f"F{number}" for number in range(1, 36)]
    for number, _, happens, test in ROWS:
        if not test:
            assert happens.startswith("cannot"), number
            continue
        file, name = test.split("::")
        assert re.search(rf"^def {name}\(", (TESTS / file).read_text(), re.MULTILINE), (number, test)

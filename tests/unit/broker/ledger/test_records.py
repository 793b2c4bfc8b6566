"""The records have the columns of their tables, in the same order: rows are read by place."""

from dataclasses import fields
from typing import Any

import pytest
import sqlalchemy as sa

from broker.ledger.records import AgentRecord, AuditRecord, BlobRecord, CommandRecord, OperationRecord
from broker.ledger.tables import AGENTS, AUDITS, BLOBS, COMMANDS, OPERATIONS


@pytest.mark.parametrize(
    ("record", "table"),
    [
        (AgentRecord, AGENTS),
        (AuditRecord, AUDITS),
        (BlobRecord, BLOBS),
        (CommandRecord, COMMANDS),
        (OperationRecord, OPERATIONS),
    ],
)
def test_record_has_the_columns_of_its_table_with_their_types(record: Any, table: sa.Table) -> None:
    columns = {column.name: (column.type.python_type, column.nullable) for column in table.columns}
    assert [(field.name, field.type) for field in fields(record)] == [
        (name, kind | None if nullable else kind) for name, (kind, nullable) in columns.items()
    ]

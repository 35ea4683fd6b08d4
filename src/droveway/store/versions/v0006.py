"""What a server took from its image, and all the disk that it holds: an image may change, and its size counts."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

# What the release before read of an image when it built or placed a server of it: the servers that there are go on
# with that, and with nothing that they were not made with.
READ_BEFORE = (
    "hw_machine_type",
    "machine_type",
    "hw_architecture",
    "architecture",
    "img_hv_type",
    "hypervisor_type",
    "img_hv_requested_version",
    "hypervisor_version_requires",
    "hw_numa_nodes",
    "hw_cpu_policy",
)
GIB = 1024**3


def upgrade() -> None:
    op.add_column("instances", sa.Column("image_properties", sa.Text(), nullable=False, server_default="{}"))
    op.create_index("ix_images_project", "images", ["project_id"])
    connection = op.get_bind()
    images = sa.table("images", sa.column("id"), sa.column("properties"), sa.column("virtual_size_bytes"))
    instances = sa.table(
        "instances",
        *(sa.column(name) for name in ("id", "image_id", "flavor", "disk_gb", "deleted", "image_properties")),
    )
    migrations = sa.table("migrations", *(sa.column(name) for name in ("instance_id", "disk_gb", "holds_claim")))
    # Read whole, with the types that they have in every release: text and numbers.
    known = {row.id: row for row in connection.execute(sa.select(images))}
    for row in connection.execute(sa.select(instances).where(sa.not_(sa.cast(instances.c.deleted, sa.Boolean)))).all():
        image = known.get(row.image_id)
        new = _copied(json.loads(row.flavor), row.disk_gb, image)
        connection.execute(sa.update(instances).where(instances.c.id == row.id).values(new))
        of_it = sa.and_(migrations.c.instance_id == row.id, sa.cast(migrations.c.holds_claim, sa.Boolean))
        connection.execute(sa.update(migrations).where(of_it).values(disk_gb=new["disk_gb"]))


def _copied(flavor: dict[str, Any], disk_gb: int, image: Any) -> dict[str, Any]:
    properties = {} if image is None else json.loads(image.properties)
    virtual_bytes = 0 if image is None else image.virtual_size_bytes or 0
    root_gb = flavor.get("disk_gb", disk_gb) or -(-virtual_bytes // GIB)
    rest_gb = flavor.get("ephemeral_gb", 0) + -(-flavor.get("swap_mb", 0) // 1024)
    kept = {name: properties[name] for name in READ_BEFORE if name in properties}
    return {"image_properties": json.dumps(kept), "disk_gb": root_gb + rest_gb}

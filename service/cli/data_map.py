"""`expunge data-map`: where a person's data can lie."""

from __future__ import annotations

from service.cli.context import Json, print_result


def data_map(json_file: Json = None) -> None:
    """Each place that can hold a person's data, what it holds, when it goes. Needs no service and no home."""
    from service.data_map import service

    print_result(json_file, service.document(), service.text())

"""What the data map looks like over REST."""

from pydantic import BaseModel, Field

from service.data_map.places import DataKind, DataStore, GoesAt


class DataMapPlace(BaseModel):
    """One place that can hold a person's data, and its rule."""

    store: DataStore
    place: str = Field(
        description="table.column, a path below the home (`*` one name, `#` a tensor), a key, a field, a label.",
        examples=["users.id"],
    )
    holds: list[DataKind]
    goes: GoesAt
    kept: str = Field(description="The rule in words, with its retention.")
    gap: str | None = Field(description="What is not so today; null where the rule is carried out.")


class DataMap(BaseModel):
    """Every place, and what the words mean."""

    kinds: dict[DataKind, str]
    moments: dict[GoesAt, str]
    places: list[DataMapPlace]

"""Request forms and answer documents as pydantic models: their configurations, and errors in words for clients.

A form is strict: no number becomes a text, no text a number, and an unknown field is an error. A document is read by
clients: it passes over fields that it does not know, and it does not apply the rules of requests (`in_requests`), so that
an older client can read the answers of a newer service. The service itself writes answers without the models: they are its
own values, and to check them again would cost every request. The tests check that both agree.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, ValidationInfo
from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from clockwork.errors import FieldError, InvalidInput, shortened
from clockwork.schema.json import InvalidValue

FORM: Final = ConfigDict(
    strict=True,
    extra="forbid",
    frozen=True,
    alias_generator=to_camel,
    populate_by_name=False,
    use_attribute_docstrings=True,
)
DOCUMENT: Final = ConfigDict(
    strict=False,
    extra="ignore",
    frozen=True,
    alias_generator=to_camel,
    populate_by_name=True,
    use_attribute_docstrings=True,
)
MEMBERS_MAX: Final = 100
"""Names in one object of a request, `taskData` aside: a list of errors would help with no more."""

_MESSAGES: Final[Mapping[str, str]] = {
    "missing": "is required",
    "extra_forbidden": "is no field of this request",
    "string_type": "should be a string",
    "model_type": "should be an object",
    "dict_type": "should be an object",
    "list_type": "should be an array",
}
_NO_CONTEXT: Final = object()
_Form = TypeVar("_Form", bound=BaseModel)


def in_requests(rule: Callable[[Any], Any]) -> AfterValidator:
    """A rule for a value in a request. It raises ValueError with a message for the client."""

    def check(value: Any, info: ValidationInfo) -> Any:
        return rule(value) if info.context is not None else value

    return AfterValidator(check)


def validated(
    model: type[_Form], document: Any, context: object = _NO_CONTEXT, *, inner: str | None = None
) -> tuple[list[FieldError], _Form | None]:
    """A request's document as its form, or every wrong field. `context`: for validators that need more than the document.
    `inner`: a field that is an object itself and bounded likewise."""
    if not isinstance(document, dict):
        return [FieldError("body", "should be a JSON object")], None
    for name, members in (("body", document), (inner, document.get(inner))):
        if isinstance(members, dict) and len(members) > MEMBERS_MAX:
            return [FieldError(str(name), f"should have at most {MEMBERS_MAX} names")], None
    try:
        return [], model.model_validate(document, context=context)
    except ValidationError as error:
        return [_field_error(each) for each in error.errors(include_url=False)], None


def read_form(model: type[_Form], document: Any, context: object = _NO_CONTEXT) -> _Form:
    """A request's document as its form. Raises: InvalidInput, naming every wrong field."""
    errors, form = validated(model, document, context)
    if form is None:
        raise InvalidInput(errors)
    return form


def _field_error(error: ErrorDetails) -> FieldError:
    # pydantic marks an error of a mapping's key by a last step "[key]"; a header may really be called that, but then it
    # is not the last of four.
    path = error["loc"][:3] if len(error["loc"]) == 4 else error["loc"]
    field = ".".join(str(step) for step in path)
    if isinstance(error["input"], InvalidValue) and error["type"] != "extra_forbidden":
        message = error["input"].message
    elif error["type"] == "literal_error":
        message = f"should be {error['ctx']['expected']}"
    elif error["type"] == "value_error":
        message = str(error["ctx"]["error"])
    elif error["type"] == "too_long":
        message = f"has {error['ctx']['actual_length']} items; at most {error['ctx']['max_length']} are taken"
    elif error["type"] in {"string_type", "model_type", "list_type"} and error["input"] is None:
        message = "is required, and null counts as absent"
    else:
        message = _MESSAGES.get(error["type"], error["msg"])
    return FieldError(shortened(field), message)

"""Elements of HTML and SVG, escaped."""

from markupsafe import Markup, escape


def tag(element: str, /, *children: str | Markup, **attributes: str | float | None) -> Markup:
    """Returns an element. Children and values of attributes are escaped, unless they are `Markup`.

    attributes: `class_` stands for class, and `aria_label` for aria-label; None leaves one out.
    """
    parts = [f"<{element}"]
    for name, value in attributes.items():
        if value is not None:
            parts.append(f' {name.rstrip("_").replace("_", "-")}="{escape(value)}"')
    if not children:
        return Markup("".join([*parts, "/>"]))  # noqa: S704 - every part is escaped above
    inside = "".join(escape(child) for child in children)
    return Markup("".join([*parts, ">", inside, f"</{element}>"]))  # noqa: S704 - likewise


def join(parts: list[Markup]) -> Markup:
    """Returns elements one after the other."""
    return Markup("").join(parts)

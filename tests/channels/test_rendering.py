"""Templates: what they can say, and that none can hang a worker."""

import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.channels import rendering
from agents.channels.rendering import TemplateError, Templates, variables
from tests.channels.stage import command, template


def test_a_template_knows_the_profile_the_event_and_the_message() -> None:
    message = command(profile={"name": "Ada"}, event={"total": 9.5, "items": ["tea", "cake"]})
    source = (
        "{{ profile.name }} {{ event.total }} {{ event.items | join: ', ' }}"
        " {{ message.journey }}/{{ message.step }} {{ unsubscribe_url }} [{{ profile.missing }}]"
    )
    rendered = Templates().render(template(text=source), variables(message, "https://x.test/u/1"))
    assert rendered == {"text": "Ada 9.5 tea, cake welcome/greet https://x.test/u/1 []"}


@given(st.text())
def test_no_value_can_add_markup_to_html(value: str) -> None:
    message = command(profile={"name": value.encode("utf-8", "replace").decode()})
    source = '<p title="{{ profile.name }}">{{ profile.name }}</p>'
    rendered = Templates().render(template(html=source), variables(message))["html"]
    inside = rendered.removeprefix('<p title="').removesuffix("</p>")
    first, _, second = inside.partition('">')
    for part in (first, second):
        assert not set(part) & set("<>\"'")


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        ("{% for i in (1..1000000000) %}a{% endfor %}", "a range of more"),
        ("{% for i in (1..1000000000) reversed %}a{% endfor %}", "a range of more"),
        ("{% for i in (1..9000) %}{% for j in (1..9000) %}{% endfor %}{% endfor %}", "steps in loops"),
        ("{% for i in (1..9000) %}{% endfor %}" * 500, "steps in loops"),
        ("{% assign a = 'aaaaaaaaaa' %}" + "{% assign a = a | append: a %}" * 40, "more than"),
        ("{% assign a = 'aaaaaaaaaa' %}" + "{% assign a = a | append: a %}" * 13 + "{{ a | replace: 'a', a }}", "make"),
        ("{{ (1..100000000) | join: ',' }}", "a range of more"),
        ("{% assign a = 'a' %}" + "{% assign a = a | append: a %}" * 17 + "{{ (1..9000) | join: a }}", "make"),
        ("{% capture x %}{% for i in (1..9000) %}" + "a" * 100 + "{% endfor %}{% endcapture %}{{ x }}", "limit"),
        ("{% if true %}" * 2000 + "{% endif %}" * 2000, "nesting"),
        ("{{ x | nothing }}", "unknown filter"),
        ("{% include 'x' %}", "unexpected tag"),
        ("{% if %}", "line 1"),
        ("a" * (rendering.SOURCE_CHARACTERS + 1), "longer than"),
    ],
)
def test_a_template_that_asks_for_too_much_is_an_error_at_once(source: str, complaint: str) -> None:
    began = time.process_time()
    with pytest.raises(TemplateError, match=complaint) as error:
        Templates().render(template("greeting", text=source), variables(command()))
    assert time.process_time() - began < 2.0
    assert str(error.value).startswith("greeting, text: ")
    assert len(str(error.value)) < 300


def test_a_body_that_is_no_template_is_an_error() -> None:
    broken = template(text="x")
    wrong = type(broken)("shop", "template", "x", 0, "0" * 64, msgspec.Raw(b'{"html": 3}'))
    with pytest.raises(TemplateError, match="Liquid sources"):
        Templates().render(wrong, {})


def test_compiled_templates_are_kept_and_their_number_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendering, "COMPILED_TEMPLATES", 2)
    templates = Templates()
    first, second, third = (template(str(n), text=str(n)) for n in range(3))
    for one in (first, second, first, third):
        templates.render(one, {})
    assert list(templates._compiled) == [first.key, third.key]

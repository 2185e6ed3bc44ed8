"""Nothing moves under the reader's hand: while rows change, what is selected, marked, focused and scrolled stays."""

from typing import Final

from tests.ui.asking import asked, create, deliver, rows
from tests.ui.conftest import Window
from tests.unit.service import Service

KEYS: Final = tuple(f"order-{number:02}" for number in range(40))
_HAND: Final = """() => ({
    scroll: window.scrollY,
    focus: document.activeElement?.closest('tr')?.dataset.key ?? null,
    selected: [...document.querySelectorAll('tbody input:checked')].map((each) => each.closest('tr').dataset.key),
    marked: String(document.getSelection()),
    rows: [...document.querySelectorAll('tbody tr')].map((each) => each.dataset.key),
})"""


async def refresh(window: Window) -> None:
    """Does at once what the page does every few seconds."""
    async with window.page.expect_response(lambda answer: "/schedules?" in answer.url and "/ui/" not in answer.url):
        await window.page.evaluate("document.querySelector('main .as-of button').click()")
    await window.page.wait_for_function("() => !document.querySelector('main .as-of button').disabled")


async def test_rows_change_in_place_and_selection_scroll_focus_and_marked_text_stay(
    service: Service, window: Window
) -> None:
    await create(service, *KEYS)
    await window.open("/schedules?client=shop")
    await rows(window).nth(39).wait_for()
    await rows(window).nth(20).get_by_role("checkbox").check()
    await rows(window).nth(22).get_by_role("link").focus()
    await window.page.evaluate(
        "document.getSelection().selectAllChildren(document.querySelectorAll('tbody th a')[21]); window.scrollTo(0, 700)"
    )
    before = await window.page.evaluate(_HAND)
    assert (before["selected"], before["focus"]) == (["shop/order-20"], "shop/order-22")
    assert before["marked"] == "order-21"
    for number in range(0, 40, 2):
        await deliver(service, KEYS[number])
        await refresh(window)
    delivered = window.page.locator("tbody .status-delivered")
    await delivered.nth(19).wait_for()
    assert await window.page.evaluate(_HAND) == before
    window.quiet()


async def test_new_rows_wait_behind_a_button(service: Service, window: Window) -> None:
    await create(service, "b", "d")
    await window.open("/schedules?client=shop")
    await window.until_rows("b", "d")
    service.engine.clock.advance_ms(-1_000)
    await create(service, "a", "c")
    await refresh(window)
    show = window.page.get_by_role("button", name="2 new ones, show")
    await show.wait_for()
    await window.until_rows("b", "d")
    await show.click()
    await window.until_rows("a", "c", "b", "d")


async def test_a_row_that_no_longer_matches_the_filter_stays_and_shows_what_became_of_it(
    service: Service, window: Window
) -> None:
    await create(service, "a", "b")
    await window.open("/schedules?client=shop&status=pending")
    await window.until_rows("a", "b")
    await asked(service, "DELETE", "/schedule/shop/a")
    await refresh(window)
    await window.page.locator("tbody .status-cancelled").wait_for()
    await window.until_rows("a", "b")


async def test_while_rows_are_selected_a_dialog_is_open_or_updates_are_paused_nothing_is_asked(
    service: Service, window: Window
) -> None:
    await create(service, "a")
    await window.page.clock.install()
    asked_for: list[str] = []
    window.page.on("request", lambda request: asked_for.append(request.url) if "/schedules?" in request.url else None)
    await window.open("/schedules?client=shop")
    await window.until_rows("a")

    async def is_live() -> None:
        """Waits until the page asks again, which it does within its interval."""
        async with window.page.expect_request(lambda request: "/schedules?" in request.url):
            await window.page.clock.run_for(6_000)

    async def is_held() -> None:
        asked_for.clear()
        await window.page.clock.run_for(20_000)
        assert asked_for == []

    await is_live()
    box = rows(window).nth(0).get_by_role("checkbox")
    await box.check()
    await is_held()
    await box.uncheck()
    await is_live()
    await window.page.keyboard.press("?")
    await window.page.get_by_role("dialog", name="Shortcuts").wait_for()
    await is_held()
    await window.page.keyboard.press("Escape")
    await is_live()
    await window.page.keyboard.press("p")
    await is_held()
    await window.page.get_by_text("paused for").wait_for()
    await window.page.keyboard.press("p")
    await is_live()

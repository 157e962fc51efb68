"""The steps on a state that is a plain dict, for the peers in Python whose stores keep what JSON or pickle can write.

Needs nothing but the standard library: it is imported from the peers' own environments.
"""

from typing import Any

TIMEOUT, REENTRY, REMEMBERED = 30 * 60_000, 24 * 3_600_000, 32

State = dict[str, Any]


def new_user() -> State:
    return {"profile": {}, "seen": [], "waiting_since": 0, "entered_at": 0, "runs": 0}


def step(user: State, event: dict[str, Any], key: str, now: int) -> tuple[bool, dict[str, Any] | None]:
    """Change the user as the event asks; return whether there was a change, and the command if there is one."""
    seen = user["seen"]
    if event["id"] in seen:
        return False, None
    seen.append(event["id"])
    if len(seen) > REMEMBERED:
        del seen[0]
    if "profile" in event:
        user["profile"].update(event["profile"])
    since, name = user["waiting_since"], event["name"]
    if since and now >= since + TIMEOUT:
        since = user["waiting_since"] = 0
    if name == "order" and since:
        user["waiting_since"] = 0
        return True, _command(user, key, now)
    if name == "cart" and not since and (not user["entered_at"] or now >= user["entered_at"] + REENTRY):
        user["waiting_since"] = user["entered_at"] = now
        user["runs"] += 1
    return True, None


def _command(user: State, key: str, now: int) -> dict[str, Any] | None:
    profile = user["profile"]
    if "tier" not in profile:
        return None
    gold = profile["tier"] == "gold" and profile.get("country") in ("DE", "FR")
    tenant, _, name = key.partition(":")
    return {
        "id": f"{key}:{user['runs']}",
        "tenant": tenant,
        "user": name,
        "template": "thanks_gold" if gold else "thanks",
        "requested_at": now,
        "profile": profile,
    }

"""The order in which a turn goes about an input: what was due comes first, the user's own runs' and a shadow's alike."""

from engine.turn import Turn
from schemas.inputs import Entered, Erased, Event, Granted, Receipt, Resumed, UserInput


def give(turn: Turn, input: UserInput) -> None:
    """Fire what was due, then give the user the input. What runs came to meanwhile is for `Turn.settle` to judge."""
    if type(input) is Event:
        turn.fire_what_is_due()
        turn.take_event(input)
        return
    resumed = isinstance(input, Resumed) and turn.unsuspend(input.run)
    turn.fire_what_is_due()
    match input:
        case Receipt():
            turn.take_receipt(input)
        case Granted():
            turn.take_grant(input)
        case Entered():
            turn.take_entry(input)
        case Resumed() if resumed:
            turn.look_again(input.run)
        case Erased():
            turn.erase()

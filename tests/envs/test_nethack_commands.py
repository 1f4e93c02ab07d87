"""Commands that ask something, played by hand in seeded games."""

from nethack_play import Player, captions

from envs.nethack import prompts
from envs.nethack.actions import CAST, EAT, ESC, MORE
from envs.nethack.prompts import Kind, Prompt


def test_eating_takes_the_nth_item_offered_and_pays_its_nutrition():
    with Player("eat").reset(0) as player:
        asked, eaten = player.do("eat", "east")
        assert asked.caption == b"What do you want to eat? [fghi or ?*]"
        assert asked.reward == -0.01
        assert player.raw["misc"].tolist() == [0, 0, 0]
        assert eaten.caption == b"Core dumped."  # what is left of an apple, for a hero in Unix
        assert eaten.reward == 49.0  # an apple is worth 50, and a turn costs 1


def test_more_takes_the_first_item():
    with Player().reset(0) as player:
        _, eaten = player.do("eat", "more")
        assert b"hard time getting all of it down" in eaten.caption  # only the food ration, f, is that big


def test_an_item_that_is_not_offered_or_another_action_declines():
    with Player().reset(0) as player:
        assert captions(player.do("eat", "southeast", "eat", "search"))[1::2] == [b"Never mind.", b"Never mind."]
        assert player.raw["blstats"][20] == 1  # no time passed: the search was an answer, not a search


def test_the_observation_shows_that_the_game_asks():
    with Player().reset(0) as player:
        player.do("eat")
        assert player.raw["misc"].tolist() == [1, 0, 0]
        player.do("search", "cast")
        assert player.raw["misc"].tolist() == [0, 0, 1]


def test_quaff():
    with Player().reset(0) as player:
        assert captions(player.do("quaff", "north")) == [b"What do you want to drink? [e or ?*]", b"You feel better."]


def test_praying_is_confirmed_by_northwest_and_keeps_all_pages():
    with Player().reset(0) as player:
        asked, declined, _, prayed = player.do("pray", "southeast", "pray", "northwest")
        assert asked.caption == b"Are you sure you want to pray? [yn] (n)"
        assert declined.caption == b""  # the game only repeats its question
        assert prayed.caption == (
            b"You begin praying to Chih Sung-tzu.  The little dog picks up a ring.  You finish your prayer.  "
            b"You feel that Chih Sung-tzu is displeased."
        )
        assert player.message == prayed.caption


def test_casting_a_spell_in_a_direction():
    with Player().reset(29) as player:
        offered, asked, cast = player.do("cast", "north", "east")
        assert offered.caption.startswith(b"Choose which spell to cast")
        assert b"a - sleep 1 enchantment" in offered.caption
        assert asked.caption == b"In what direction?"
        assert cast.caption == (
            b"The sleep ray hits the little dog.  The sleep ray bounces!  The sleep ray hits the little dog."
        )


def test_a_spell_that_is_not_offered_closes_the_menu():
    with Player().reset(29) as player:
        player.do("cast", "east")
        assert player.raw["misc"].tolist() == [0, 0, 0]


def test_picking_up_takes_all_that_lies_there():
    with Player().reset(0) as player:
        player.press("dgdhdf")  # drops apples, oranges and food rations
        (picked,) = player.do("pick up")
        assert picked.caption.startswith(b"Pick up what?  Comestibles  a - 7 uncursed apples")
        for item in (b"g - 7 uncursed apples.", b"h - 5 uncursed oranges.", b"f - 4 uncursed food rations."):
            assert item in picked.caption
        assert captions(player.do("pick up")) == [b"The stairs are solidly fixed to the floor."]


def test_a_window_of_text_is_read():
    with Player().reset(0) as player:
        player.press("dgdhdf")
        _, back = player.do("west", "east")
        assert back.caption == (
            b"You swap places with your little dog.  There is a staircase up here.  Things that are here:  "
            b"4 uncursed food rations  5 uncursed oranges  7 uncursed apples"
        )


def test_kicking_in_a_direction():
    with Player().reset(0) as player:
        assert captions(player.do("kick", "east")) == [b"In what direction?", b"You kick at empty space."]
        assert captions(player.do("kick", "search")) == [b"In what direction?", b""]


def test_questions_of_other_commands_are_declined_at_once():
    with Player().reset(0) as player:
        (up,) = player.do("up")
        assert up.caption == b"Beware, there will be no return!  Still climb? [yn] (n)"
        assert player.raw["misc"].tolist() == [0, 0, 0]
        assert not up.terminated


def test_more_without_a_question_does_nothing():
    with Player().reset(0) as player:
        before, idle = player.do("pay", "more")
        assert before.caption == b"There appears to be no shopkeeper here to receive your payment."
        assert idle == (-0.01, False, b"", False, False)
        assert player.message == b""


def test_what_is_said_before_a_request_for_a_name_is_kept_and_the_request_declined():
    with Player(wizard=True).reset(0) as player:
        player.press("\x17blessed potion of see invisible\r")
        _, quaffed = player.do("quaff", "east")
        assert quaffed.caption == b"This tastes like slime mold juice."
        assert player.raw["misc"].tolist() == [0, 0, 0]


def test_browsing_the_map_is_declined():
    with Player(wizard=True).reset(0) as player:
        player.press("\x17blessed potion of object detection\r")
        _, quaffed, after = player.do("quaff", "east", "east")
        assert quaffed.caption.startswith(b"You detect the presence of objects.")
        assert after.caption == b"You swap places with your kitten."


def test_questions_are_understood():
    read = prompts.read_question
    assert read(b"What do you want to eat? [$a-cfF or ?*]") == Prompt(
        Kind.CHOICE, b"What do you want to eat? [$a-cfF or ?*]", b"$abcfF"
    )
    assert read(b"What do you want to wield? [- ab or ?*]").choices == b"ab"
    assert read(b"Itemized billing? [ynq] (n)").kind is Kind.YES_NO
    assert read(b"There are 2 apples here; eat one? [ynq] (n)").kind is Kind.YES_NO
    assert read(b"Which ring-finger, Right or Left? [rl]") is None


def test_answers():
    items = Prompt(Kind.CHOICE, b"", b"abcdefghij")
    assert [prompts.answer(items, ord(key)) for key in "kljhunbyKL"] == list(b"abcdefghij")
    assert prompts.answer(items, MORE) == ord("a")
    assert [prompts.answer(items, key) for key in (ord("J"), CAST, EAT)] == [ESC, ESC, ESC]
    assert [prompts.answer(Prompt(Kind.YES_NO, b""), ord(key)) for key in "ynk\r"] == [ord("y"), ord("n"), ESC, ESC]
    direction = Prompt(Kind.DIRECTION, b"")
    assert [prompts.answer(direction, ord(key)) for key in "k.<K"] == [ord("k"), ord("."), ord("<"), ESC]
    place = Prompt(Kind.PLACE, b"")
    assert prompts.answer(place, ord("K")) == ord("K")
    assert [prompts.still_open(place, key) for key in (ord("K"), ord("."), ESC)] == [True, False, False]


def test_windows_are_read_from_the_right_part_of_the_screen():
    screen = [b"|..@.   Things that are here:     ", b"------  a dagger                  ", b"  ##    (end)     "]
    assert prompts.window_lines(screen, 2) == [b"Things that are here:", b"a dagger"]
    assert prompts.window_lines([b"Who you are:   ", b" --More--  "], 1) == [b"Who you are:"]
    assert prompts.window_lines([b"|...|"], 0) == []
    assert prompts.read_menu([b"Armor", b"a - a robe", b"$ - 3 gold pieces", b"(end)"]) == b"a$"

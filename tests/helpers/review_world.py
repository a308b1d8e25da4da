"""A world of lines for the tests of the review grid: held for several reasons, excluded, waiting, delivered."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "sql"))

from sql_world import JUNE, MAY, Customer, Line, World, monthly

__all__ = ["JUNE", "MAY", "Customer", "Line", "World", "filled", "monthly"]


def filled(dsn: str) -> World:
    """Three customers, one of them unmapped; lines delivered, waiting, held and excluded; hostile texts."""
    world = World(dsn)
    bakery = world.customer()
    harbour = world.customer()
    world.update("mapping.organization", "organization_id", bakery.organization_id, name="Bäckerei 100% _Ulme_")
    nobody = world.organization(name='=cmd|" /C calc"!A0')
    world.setting("default_agreement_type", "Cloud Subscriptions")
    delivered = monthly(MAY, subscription_id="sub-delivered", name="Delivered Suite")
    world.invoice(bakery, delivered, day=MAY)
    world.night(MAY)
    world.invoice(
        bakery,
        monthly(JUNE, subscription_id="sub-1", name="Mail \\ 50%_off 'quoted' \"twice\""),
        monthly(JUNE, subscription_id="sub-2", name="=1+1", quantity=3, unit_price=7),
        monthly(JUNE, subscription_id="sub-3", name="\u202eright to left\u202c", charge_type="Mystery"),
        monthly(JUNE, subscription_id="sub-4", name="x" * 10_000, offer_id="offer-unknown"),
        day=JUNE,
    )
    world.invoice(
        harbour,
        monthly(JUNE, subscription_id="sub-5", name="Plain", quantity=5, unit_price="2.50"),
        Line(start=None, end=None, subscription_id="sub-6", name="Plain"),
        monthly(JUNE, subscription_id="sub-7", name="Foreign", currency="SEK"),
        day=JUNE,
    )
    world.invoice(
        nobody,
        monthly(JUNE, subscription_id="sub-8", name="+Unmapped"),
        monthly(JUNE, subscription_id=None, name="@Nothing", offer_id=None),
        day=JUNE,
    )
    world.decide("nightly", MAY, JUNE)
    return world

"""One workflow in each form, for the OpenAPI document."""

from __future__ import annotations

from typing import Any

EXAMPLES: dict[str, Any] = {
    "task": {
        "summary": "One job",
        "value": {"task": "shop.charge", "kwargs": {"order": 4711}, "retries": 3, "on_failure": "fail"},
    },
    "nodes": {
        "summary": "Any graph: nodes that need one another",
        "value": {
            "name": "order-4711",
            "timeout": 3600,
            "nodes": {
                "order": {"task": "shop.load", "args": [4711]},
                "charge": {"task": "shop.charge", "args": [{"$result": "order", "path": ["total"]}]},
                "pack": {"task": "shop.pack", "args": [{"$result": "order", "path": ["items"]}]},
                "ship": {"task": "shop.ship", "args": [4711], "needs": ["charge", "pack"]},
                "refund": {"task": "shop.refund", "args": [4711], "needs": {"charge": "success", "ship": "failure"}},
            },
            "result": {"tracking": {"$result": "ship", "path": ["number"]}},
        },
    },
    "chain": {
        "summary": "One after the other, each with the result of the one before",
        "value": {"chain": [{"task": "shop.add", "args": [1, 2]}, {"task": "shop.add", "args": [10]}]},
    },
    "group": {
        "summary": "Side by side; the result is the list of theirs",
        "value": {"group": [{"task": "shop.add", "args": [1, 2]}, {"task": "shop.add", "args": [3, 4]}]},
    },
    "chord": {
        "summary": "A group, and a body that gets the list",
        "value": {
            "chord": {
                "header": [{"task": "shop.add", "args": [1, 2]}, {"task": "shop.add", "args": [3, 4]}],
                "body": {"task": "shop.sum"},
            }
        },
    },
    "map": {
        "summary": "A task for each item of a list that is known only then",
        "value": {
            "chain": [
                {"task": "shop.open_orders"},
                {"map": {"task": "shop.remind", "kwargs": {"address": {"$item": True, "path": ["address"]}}}},
                {"task": "shop.report"},
            ]
        },
    },
    "wait": {
        "summary": "Waits for a signal, here of the node `approval`",
        "value": {
            "nodes": {
                "draft": {"task": "shop.draft_offer", "args": [4711]},
                "approval": {"wait": {"timeout": 86400}, "needs": ["draft"]},
                "send": {
                    "task": "shop.send_offer",
                    "args": [{"$result": "draft"}, {"$result": "approval", "path": ["by"]}],
                },
            }
        },
    },
}

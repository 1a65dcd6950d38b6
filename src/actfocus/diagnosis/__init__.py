"""The diagnosis of an agent: `actfocus diagnose`. What it computes is explained in docs/diagnose.md."""

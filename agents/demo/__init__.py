"""A small shop with made-up customers and a mailbox, to see the engine at work in a minute."""

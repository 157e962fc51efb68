"""Example journeys: each module is only data. Copy one into a folder of your own to begin."""

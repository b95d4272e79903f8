"""Quality of a scenario set: what breaks a rule, what is too alike, what it holds, how it is built."""

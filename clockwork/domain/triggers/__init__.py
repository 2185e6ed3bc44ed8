"""Times at which something fires again and again: cron, recurrence rules, rates, delays, unions, calendars, zones."""

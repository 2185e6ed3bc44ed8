"""Operations: calls of operators about pauses, shards, dead letters and all pending schedules."""

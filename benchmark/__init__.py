"""From experiments to leaderboards: scheduling, evaluation, storage, reports, command line."""

"""What every paid or remote service needs: one HTTP client, one pace, and a cache, so that nothing is paid twice."""

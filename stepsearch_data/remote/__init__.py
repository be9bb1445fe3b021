"""What every paid or distant service needs: one HTTP client, one pace, one cache that nothing is paid twice with."""

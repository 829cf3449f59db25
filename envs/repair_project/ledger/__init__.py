"""Ledger: amounts, calendars, bookings and texts of a small business. Amounts are whole cents, dates are ISO texts."""

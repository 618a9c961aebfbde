"""Limits on fibres: Ott-Antonsen and Vlasov equations."""

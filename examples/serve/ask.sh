#!/usr/bin/env bash
# Asks one fine-tune of a server with curl: bash examples/serve/ask.sh http://127.0.0.1:8000 cars
set -euo pipefail
address=$1 model=$2

curl -fsS "$address/v1/models/$model"
echo
curl -fsSN "$address/v1/chat/completions" \
  -H "Content-Type: application/json" \
  -H "Authorization: Bearer ${RANDES_API_KEY:-none}" \
  -d '{
    "model": "'"$model"'",
    "messages": [{"role": "user", "content": "What is the sea?"}],
    "max_tokens": 40, "temperature": 0, "stream": true
  }'

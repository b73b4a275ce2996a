# The page in a container:
#   docker build -t gender_classifier .
#   docker run --rm -p 8866:8866 gender_classifier
# PORT is the port it listens on; APP_OPTIONS are more options of `gender_classifier app`.
FROM python:3.11-slim AS build
WORKDIR /src
COPY . .
RUN python -m venv /opt/app && /opt/app/bin/pip install --no-cache-dir -c constraints.txt ".[examples]"
# the face detector, so that nothing has to be fetched later
RUN GENDER_CLASSIFIER_CACHE=/opt/cache /opt/app/bin/python -c "from gender_classifier.faces import yunet_path; yunet_path()"

FROM python:3.11-slim
COPY --from=build /opt /opt
RUN useradd --create-home --uid 1000 visitor
USER visitor
WORKDIR /home/visitor
ENV PATH=/opt/app/bin:$PATH GENDER_CLASSIFIER_CACHE=/opt/cache PYTHONUNBUFFERED=1 PORT=8866 APP_OPTIONS=""
EXPOSE 8866
HEALTHCHECK --interval=30s --timeout=10s --start-period=20s CMD ["python", "-c", "import os, urllib.request as u; u.build_opener(u.ProxyHandler({})).open('http://127.0.0.1:' + os.environ['PORT'] + '/health', timeout=5)"]
CMD ["sh", "-c", "exec gender_classifier app --ip 0.0.0.0 --port $PORT $APP_OPTIONS"]
